"""Every flow with secrets that are looked for afterwards, everywhere: they turn up nowhere.

The upstreams are as bad as they can be: the token service and the registry repeat what they were told,
in every form they can think of.
"""

import asyncio
import base64
import json
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from facade.control.connections.sealing import KeyRing
from tests.support.canaries import Canaries
from tests.support.live import REPOSITORY, USER, Live, live
from tests.support.misbehaviour import Misbehaviour, redirect, status
from tests.support.raw_http import Reply, Seen
from tests.support.redis_server import PASSWORD as REDIS_PASSWORD
from tests.support.redis_server import RedisServer, redis_server
from tests.support.registry import BasicAuth, BearerAuth
from tests.support.token_server import Account

pytestmark = pytest.mark.slow
WRONG = "canary-wrong-Pa55word-$1"
FIRST = "canary-first-Pa55word+/="
SECOND = 'canary-second Pa55word\\"ä'
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


class Operator:
    """Somebody at a terminal, whose screen is searched afterwards."""

    def __init__(self, it: Live, canaries: Canaries) -> None:
        self._it = it
        self._canaries = canaries

    async def run(self, *arguments: str | Path, stdin: str = "", code: int | None = 0) -> str:
        """A command; with and without --json where that exists. None = any exit code."""
        done = await self._it.facade.cli(*arguments, stdin=stdin)
        said = done.stdout + done.stderr
        self._canaries.heard(f"command line: {' '.join(map(str, arguments[:2]))}", said)
        assert code is None or done.code == code, f"{arguments}: {said}"
        return said

    async def call(self, method: str, path: str, body: object, *, key: str) -> int:
        """A request to the operator port, malformed as it may be."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
            session.request(method, f"{self._it.facade.operator}/api/v1{path}", data=data) as got,
        ):
            self._canaries.heard(f"api: {method} {path}", await got.read())
            self._canaries.heard(f"api: {method} {path}", str(got.headers))
            return got.status

    async def pull(self, tag: str) -> int:
        """A device's pull; what it is told is searched too."""
        answered = await self._it.pull(tag)
        if answered.status != 200:
            self._canaries.heard(f"device: {tag}", answered.body + str(answered.headers).encode())
        return answered.status


def echoes(secret: str) -> bytes:
    """Everything that a spiteful service could say of a secret."""
    basic = base64.b64encode(f"{USER}:{secret}".encode()).decode()
    words = f"no: {secret} / {basic} / Basic {basic} / {secret.encode().hex()}"
    return json.dumps(
        {
            "details": words,
            "error": "invalid_grant",
            "error_description": words,
            "errors": [{"code": "DENIED", "message": words, "detail": {"you": [secret, basic]}}],
        }
    ).encode()


def repeating(code: int) -> Misbehaviour:
    """A registry that refuses and repeats what it was told."""

    def change(seen: Seen, reply: Reply) -> Reply:
        scheme, _, value = (seen.authorization or "").partition(" ")
        if not value:
            return reply
        secret = base64.b64decode(value).decode().partition(":")[2] if scheme == "Basic" else value
        return status(code, echoes(secret), (("X-You-Said", seen.authorization or ""),))(
            seen, reply
        )

    return change


async def look_into(redis: RedisServer, canaries: Canaries) -> None:
    """Keep what Redis has now."""
    for entry, value in (await redis.values()).items():
        canaries.heard("redis", value + entry)


async def flows(it: Live, canaries: Canaries, redis: RedisServer) -> None:
    """What an operator and a device can do, well and badly."""
    op = Operator(it, canaries)
    add = ("registry", "add", it.host, "--username", USER, "--password-stdin", "--insecure")
    test = ("registry", "test", it.host, "--repository", REPOSITORY)

    # Connecting badly.
    await op.run("registry", "add", f"http://{USER}:{WRONG}@{it.host}", "--anonymous", code=None)
    await op.run(*add, stdin=WRONG)
    await op.run(*add, stdin=FIRST, code=1)
    await op.run(*test, code=1)
    await op.run("registry", "tags", f"{it.host}/{REPOSITORY}", code=1)

    # Services that repeat what they were told.
    it.tokens.manner.body = echoes(WRONG)
    for answer in (401, 403, 400, 500, 200):
        it.tokens.manner.status = answer
        await op.run(*test, code=1)
        await op.run("artifact", "import", f"{it.host}/{REPOSITORY}:v1", "--fleet", "dev", code=1)
    it.tokens.manner.status = None

    # Well.
    it.tokens.accounts[USER] = Account(FIRST)
    await op.run("registry", "rotate", it.host, "--password-stdin", stdin=FIRST)
    await op.run(*test)
    await op.run("registry", "tags", f"{it.host}/{REPOSITORY}")
    places = [f"{it.host}/{REPOSITORY}:{tag}" for tag in it.images]
    await op.run("artifact", "import", *places, "--fleet", "dev")
    assert await op.pull("v1") == 200
    await look_into(redis, canaries)

    # Tokens that are repeated, and a registry that knows passwords only.
    for code in (401, 403, 400, 500, 404):
        it.registry.script("/v2/*/blobs/*", repeating(code))
        assert await op.pull("v2") != 200
        it.registry.behave()
    signed = canaries.add("signed URL", "0123456789abcdef-signature-canary")
    for location in (
        f"http://127.0.0.1:1/blob?X-Amz-Signature={signed}&X-Amz-Credential={signed}",
        f"http://user:{signed}@127.0.0.1:1/blob",
        f"https://127.0.0.1:1/?token={signed}",
        f"ftp://{signed}/",
    ):
        it.registry.script("/v2/*/blobs/*", redirect(location))
        assert await op.pull("v3") != 200
        it.registry.behave()
    it.registry.auth = BasicAuth(USER, SECOND)
    it.registry.script("*", repeating(403))
    await op.run("registry", "rotate", it.host, "--password-stdin", stdin=SECOND)
    await op.run(*test, code=1)
    assert await op.pull("v4") != 200
    it.registry.behave()
    await op.run(*test)
    assert await op.pull("v4") == 200
    it.registry.auth = BearerAuth(it.tokens, realm=f"http://thief.example/token?as={signed}")
    await op.run(*test, code=1)
    it.registry.auth = BearerAuth(it.tokens)
    it.change_password(SECOND)
    async with asyncio.timeout(10):
        while await op.pull("v5") != 200:  # noqa: ASYNC110 - real time
            await asyncio.sleep(0.5)  # until what the thief's realm led to is forgotten

    await look_into(redis, canaries)

    # The clouds.
    await clouds(op, canaries, it)

    # The operator port, spoken to badly.
    key = canaries.add("api key", (it.facade.state / "api-key").read_text().strip())
    odd: list[object] = [
        {"host": it.host, "provider": "static", "secret": {"value": FIRST}},
        {"host": it.host, "provider": "static", "username": "x", "secret": FIRST, "more": FIRST},
        {"host": "x", "provider": FIRST, "secret": [FIRST]},
        {"host": it.host, "provider": "aws", "config": {"secret_access_key": FIRST}},
        {"host": it.host, "provider": "google", "config": {"private_key": FIRST, "type": "x"}},
        f'{{"secret": "{WRONG}", '.encode(),
        {"host": "y.example", "provider": "static", "username": "u:x", "secret": FIRST},
        {"host": "y.example", "provider": "static", "username": "u", "secret": f"{FIRST}\n{FIRST}"},
        {
            "host": "y.example",
            "provider": "anonymous",
            "settings": {"proxy": f"http://u:{FIRST}@p"},
        },
    ]
    for body in odd:
        assert 400 <= await op.call("POST", "/connections", body, key=key) < 500
    assert await op.call("PATCH", f"/connections/{it.host}", odd[1], key=key) == 400
    assert await op.call("GET", f"/connections/{it.host}", b"", key=key) == 200
    assert await op.call("GET", "/connections", b"", key=f"{key[:-1]}x") == 401

    # Looking at everything, changing the sealing key, and leaving.
    for command in ("list", f"show {it.host}", f"show {it.host} --json"):
        await op.run("registry", *command.split())
    for command in ("audit", "audit --json", "pulls", "pulls --json", "doctor", "sealing rotate"):
        await op.run(*command.split(), code=None)
    await op.run("registry", "remove", it.host, "--yes")
    await op.pull("v5")


async def clouds(op: Operator, canaries: Canaries, it: Live) -> None:
    """Google's and AWS's secrets, exchanged with nobody: there is no way out of here."""
    document = json.dumps(
        {
            "type": "service_account",
            "project_id": "p",
            "private_key_id": "0123456789abcdef0123456789abcdef01234567",
            "private_key": _private_key(canaries),
            "client_email": "robot@p.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": "https://oauth2.googleapis.com/token",
        }
    )
    file = it.certificates.parent / "google.json"
    file.write_text(document)
    for host in ("europe-docker.pkg.dev", "example.com"):
        await op.run("registry", "add", host, "--google-key-file", file, code=None)
        await op.run("registry", "test", host, code=None)
    file.write_text(document.replace("googleapis", "thief") + "!")
    await op.run("registry", "add", "us-docker.pkg.dev", "--google-key-file", file, code=None)
    secret = canaries.add("aws secret", "canary/aws+secret/access+key/0123456789a")
    external = canaries.add("external ID", "canary-external-id-0123")
    for host in (ECR, "example.org"):
        await op.run(
            *("registry", "add", host, "--aws-role-arn", "arn:aws:iam::123456789012:role/pull"),
            *("--aws-region", "eu-west-1", "--aws-external-id", external),
            *("--aws-access-key-id", "AKIAIOSFODNN7EXAMPLE", "--aws-secret-stdin"),
            stdin=secret,
            code=None,
        )
        await op.run("registry", "test", host, code=None)


def _private_key(canaries: Canaries) -> str:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    for number in (3, 12):
        canaries.add(f"private key, line {number}", pem.splitlines()[number])
    return pem


async def test_secrets_turn_up_nowhere(tmp_path: Path) -> None:
    canaries = Canaries()
    for name, secret in (("wrong", WRONG), ("first", FIRST), ("second", SECOND)):
        canaries.add(f"{name} password", secret)
        canaries.add(f"{name} basic", base64.b64encode(f"{USER}:{secret}".encode()).decode())
    canaries.add("redis password", REDIS_PASSWORD)
    async with redis_server(tmp_path / "redis", password=REDIS_PASSWORD) as redis:
        env = {"FACADE_REDIS__URL": redis.url, "FACADE_LOG__LEVEL": "debug"}
        async with live(tmp_path / "live", env=env) as it:
            rings = [KeyRing.load(it.facade.state / "sealing.key")]
            await flows(it, canaries, redis)
            rings.append(KeyRing.load(it.facade.state / "sealing.key"))
            for ring in rings:
                for key_id in ring.ids:
                    canaries.add(f"sealing key {key_id}", _base64(ring.key(key_id)))
            for number, token in enumerate(it.tokens.issued):
                canaries.add(f"token {number}", token)
            assert len(it.tokens.issued) > 3

            await look_into(redis, canaries)
            assert any(where.startswith("redis") for where in canaries.places)
            async with aiohttp.ClientSession() as session:
                for path in ("/metrics", "/readyz", "/healthz"):
                    async with session.get(it.facade.metrics + path) as got:
                        canaries.heard(f"metrics port: {path}", await got.read())
            _search_files(canaries, it, "while it runs")
            await it.facade.stop()
            canaries.heard("log", it.facade.log)
            assert len(it.facade.log) > 10_000
            _search_files(canaries, it, "after it")
    assert canaries.found() == []


def _search_files(canaries: Canaries, it: Live, when: str) -> None:
    canaries.keep(
        it.facade.state,
        but={
            "api-key": "the operator's own copy of the API key",
            "sealing.key": "the key ring itself",
        },
    )
    assert "file facade.db" in canaries.places, when
    assert any(where.startswith("file cache/") for where in canaries.places), when


def _base64(key: bytes | None) -> str:
    assert key is not None
    return base64.b64encode(key).decode()


async def test_a_configuration_that_is_refused_shows_no_password(tmp_path: Path) -> None:
    canaries = Canaries()
    secret = canaries.add("redis password", "canary-redis-Pa55word")
    async with live(tmp_path) as it:
        op = Operator(it, canaries)
        file = tmp_path / "facade.toml"
        for url, code in (
            (f"redis://u:{secret}@h:6379/1", 0),
            (f"rediss+sentinel://u:{secret}@h/s?sentinel_password={secret}", 0),
            (f"redis://u:{secret}@h:port", 1),
            (f"http://u:{secret}@h", 1),
            (f"redis://h?password={secret}", 1),
        ):
            file.write_text(f"[redis]\nurl = '{url}'\n")
            await op.run("config", "show", "--config", file, code=code)
            await op.run("config", "show", "--config", file, "--json", code=code)
            if code:
                other = tmp_path / "other"
                await op.run("up", "--state", other, "--config", file, code=code)
    assert canaries.found() == []
