"""Credentials, sealing key and connections change under a running `facade up`, while devices pull."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from facade.control.connections.sealing import KeyRing
from tests.support.live import PASSWORD, REPOSITORY, Live, live
from tests.support.redis_server import redis_server

NEW = "canary-Pa55word-second"


async def ready(it: Live) -> dict[str, Any]:
    """What the readiness probe says."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{it.facade.metrics}/readyz") as got,
    ):
        document: dict[str, Any] = json.loads(await got.read())
        return document


def database_bytes(state: Path) -> bytes:
    """The database with its write-ahead log."""
    return b"".join(path.read_bytes() for path in state.glob("facade.db*"))


async def shown(it: Live) -> dict[str, object]:
    """`registry show`."""
    document: dict[str, object] = (await it.facade.must("registry", "show", it.host, "--json")).json
    return document


async def shown_with(it: Live, name: str, *, present: bool) -> dict[str, object]:
    """`registry show`, once its `name` is there (or gone): uses are written once a second."""
    async with asyncio.timeout(10):
        while True:
            document = await shown(it)
            if bool(document.get(name)) == present:
                return document
            await asyncio.sleep(0.2)


async def test_a_rotated_secret_is_used_at_once_and_the_old_tokens_are_dead(tmp_path: Path) -> None:
    async with live(tmp_path) as it:
        await it.add()
        await it.import_all()
        assert (await it.pull("v1")).status == 200
        assert (await shown(it)).get("last_error") is None

        it.change_password(NEW)  # at the registry's end, first
        refused = await it.pull("v2")
        assert (refused.status, refused.reason) == (502, "upstream-refused")
        failed = await shown_with(it, "last_error", present=True)
        assert "incorrect username or password" in str(failed["last_error"])
        assert (await it.pull("v1")).status == 200, "what is cached is served all the while"

        dead = list(it.tokens.issued)
        await it.rotate(NEW)
        it.registry.requests.clear()
        started = time.monotonic()
        assert (await it.pull("v2")).status == 200
        assert time.monotonic() - started < 5
        sent = {seen.authorization for seen in it.registry.requests}
        assert not sent & {f"Bearer {token}" for token in dead}
        good = await shown_with(it, "last_ok", present=True)
        assert good.get("last_error") is None


async def test_a_rotation_ahead_of_the_registry_uses_no_old_token(tmp_path: Path) -> None:
    async with live(tmp_path) as it:
        await it.add()
        await it.import_all()
        assert (await it.pull("v1")).status == 200
        old, before = set(it.tokens.issued), len(it.tokens.requests)
        it.tokens.accounts["second-bot"] = it.tokens.accounts["acme-bot"]
        await it.facade.must(
            *("registry", "rotate", it.host, "--username", "second-bot", "--password-stdin"),
            stdin=PASSWORD,
        )
        it.registry.requests.clear()
        assert (await it.pull("v2")).status == 200
        assert all(
            seen.authorization is None or seen.authorization.removeprefix("Bearer ") not in old
            for seen in it.registry.requests
        )
        assert {seen.query["account"][0] for seen in it.tokens.requests[before:]} == {"second-bot"}


async def test_a_removed_connection_is_used_no_more_cached_or_not(tmp_path: Path) -> None:
    async with live(tmp_path) as it:
        await it.add()
        await it.import_all()
        assert (await it.pull("v1")).status == 200
        await it.facade.must("registry", "remove", it.host, "--yes")
        requests, exchanges = len(it.registry.requests), len(it.tokens.requests)
        started = time.monotonic()
        while (answer := await it.pull("v1")).status == 200:
            assert time.monotonic() - started < 5
        assert (answer.status, answer.reason) == (403, "host-not-connected")
        assert (await it.pull("v2")).reason == "host-not-connected"
        assert (len(it.registry.requests), len(it.tokens.requests)) == (requests, exchanges)

        it.tokens.revoke_all()
        await it.add()
        assert (await it.pull("v1")).status == 200, "connected anew, it proves itself anew"
        assert len(it.tokens.requests) > exchanges


async def test_the_sealing_key_changes_while_pulls_go_on(tmp_path: Path) -> None:
    async with live(tmp_path) as it:
        await it.add()
        await it.import_all()
        key_file = it.facade.state / "sealing.key"
        old = KeyRing.load(key_file)
        pulls: list[int] = []
        stop = asyncio.Event()

        async def pull_on() -> None:
            while not stop.is_set():
                it.tokens.revoke_all()  # each one needs the password again
                tag = f"v{len(pulls) % len(it.images) + 1}"
                pulls.append((await it.pull(tag)).status)

        pulling = asyncio.create_task(pull_on())
        documents = [(await it.facade.must("sealing", "rotate", "--json")).json for _ in range(3)]
        while len(pulls) < len(it.images):  # noqa: ASYNC110 - others do the pulling
            await asyncio.sleep(0.05)
        stop.set()
        await pulling
        assert set(pulls) == {200}
        assert [document["resealed"] for document in documents] == [1, 1, 1]
        ring = KeyRing.load(key_file)
        assert ring.ids == {documents[-1]["key_id"]}
        assert old.primary in documents[0]["retired"]
        audit = (await it.facade.must("audit", "--json")).json["items"]
        assert [row["action"] for row in audit].count("sealing.rotate") == 3

        await it.facade.kill()  # with whatever the write-ahead log holds
        assert f"f1.{old.primary}.".encode() not in database_bytes(it.facade.state)
        # Whoever has the old key and the files: nothing opens.
        old.save(key_file)
        await it.facade.start()
        it.tokens.revoke_all()
        tried = await it.facade.cli("registry", "test", it.host)
        assert tried.code == 1
        assert "not in the key ring" in tried.stdout + tried.stderr
        await it.facade.kill()
        ring.save(key_file)
        await it.facade.start()
        await it.facade.must("registry", "test", it.host, "--repository", REPOSITORY)


@pytest.mark.slow
async def test_killed_in_the_middle_of_rotations_nothing_is_lost(tmp_path: Path) -> None:
    async with live(tmp_path) as it:
        await it.add()
        await it.import_all()
        for pause in (0.0, 0.003, 0.006, 0.01, 0.02, 0.04):
            url = f"{it.facade.operator}/api/v1/sealing/rotate"
            key = (it.facade.state / "api-key").read_text().strip()
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
                rotating = asyncio.create_task(session.post(url))
                await asyncio.sleep(pause)
                await it.facade.kill()
                await asyncio.gather(rotating, return_exceptions=True)
            await it.facade.start()
            it.tokens.revoke_all()
            await it.facade.must("registry", "test", it.host, "--repository", REPOSITORY)
        done = (await it.facade.must("sealing", "rotate", "--json")).json
        assert KeyRing.load(it.facade.state / "sealing.key").ids == {done["key_id"]}


async def test_tokens_outlive_the_process_in_redis_and_redis_may_go(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path / "redis") as redis,
        live(tmp_path, env={"FACADE_REDIS__URL": redis.url}) as it,
    ):
        await it.add()
        await it.import_all()
        assert (await it.pull("v1")).status == 200
        exchanges = len(it.tokens.requests)
        assert await redis.values()

        await it.facade.kill()
        await it.facade.start()
        assert (await it.pull("v2")).status == 200
        assert len(it.tokens.requests) == exchanges, "the token of before is used again"

        redis.freeze()
        it.tokens.revoke_all()
        started = time.monotonic()
        assert (await it.pull("v3")).status == 200
        assert time.monotonic() - started < 5
        assert len(it.tokens.requests) > exchanges
        state = await ready(it)
        assert state["status"] == "degraded"
        assert any("does not answer" in reason for reason in state["reasons"])
        redis.thaw()
        async with asyncio.timeout(15):
            while any("Redis" in words for words in (await ready(it))["reasons"]):  # noqa: ASYNC110
                await asyncio.sleep(0.2)

        await redis.stop()
        it.tokens.revoke_all()
        assert (await it.pull("v4")).status == 200


async def test_a_facade_starts_without_its_redis(tmp_path: Path) -> None:
    async with live(tmp_path, env={"FACADE_REDIS__URL": "redis://127.0.0.1:1"}) as it:
        await it.add()
        await it.import_all()
        assert (await it.pull("v1")).status == 200
        assert (await ready(it))["status"] == "degraded"
