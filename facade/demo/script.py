"""`facade demo`: the whole main job on this machine, told step by step.

Guarantees: everything shown is real: the commands, mutual TLS, signatures, tokens, bytes and counts; a
claim that does not hold ends the demo with exit status 1. Nothing is left behind but the folder
given with `--state`. Does not touch the network, except for an image given with `--image`.
"""

import asyncio
import json
import os
import secrets
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from facade.cli.runtimes import CLIENT_FILES
from facade.clock import SystemClock
from facade.config.sources import load
from facade.demo.image import make_image
from facade.demo.registry import DemoRegistry
from facade.demo.shown import Shown
from facade.demo.stage import DemoFailed, Stage, check, size
from facade.observability.logs import configure
from facade.oci.digest import Digest
from facade.secret import Secret
from facade.up.run import started
from facade.up.running import Running
from facade.up.state import StateFolder

USER = "demo"
REPOSITORY = "acme/kiosk"
TAG, UNSIGNED_TAG = "v1.4.2", "v1.5.0-beta"
DEVICE = "dev/kiosk-7"


def run(*, once: bool, image: str | None, state: Path | None) -> int:
    """Play the demo; gives the exit status.

    Arguments:
        once: end when done, instead of staying up until Ctrl-C.
        image: HOST/REPO:TAG of a real registry to use instead of the demo's own.
        state: keep everything in this folder; None = a temporary one.
    """
    shown = Shown.parse(image) if image else None
    with tempfile.TemporaryDirectory(prefix="facade-demo-") as temporary:
        folder = (state or Path(temporary) / "state").absolute()
        try:
            asyncio.run(_Demo(folder, shown, once=once).play())
        except DemoFailed as error:
            print(f"\nThe demo failed: {error.message}", file=sys.stderr)
            print(f"The log of the facade: {_log_tail(folder)}", file=sys.stderr)
            return 1
    return 0


def _log_tail(folder: Path) -> str:
    try:
        lines = (folder / "facade.log").read_text().splitlines()
    except OSError:
        return "(none)"
    return "\n  ".join(["", *lines[-8:]])


class _Demo:
    def __init__(self, folder: Path, shown: Shown | None, *, once: bool) -> None:
        self._folder = folder
        self._shown = shown
        self._once = once
        self._stage = Stage(sys.stdout, {"FACADE_STATE": str(folder)})
        self._registry: DemoRegistry | None = None
        self._password = Secret(secrets.token_urlsafe(12))

    async def play(self) -> None:
        stage = self._stage
        stage.title("Facade demo: from a private registry to a device, signed and verified.")
        async with AsyncExitStack() as stack:
            stage.step("Start")
            shown = self._shown or await self._own_registry(stack)
            running = await stack.enter_async_context(self._facade())
            urls = running.server.urls
            stage.proven(
                "certificates, signing keys and a first signed repository made on the spot"
            )
            stage.proven(
                f"devices at {urls['device']} (mutual TLS 1.3), operators at {urls['operator']}"
            )
            await self._connect(shown)
            await self._browse(shown)
            digest = await self._import(shown)
            certificates = self._folder / "kiosk-7"
            await self._enrol(certificates)
            first = await self._pull(shown, urls["device"], certificates, "first.oci")
            await self._refuse(shown, urls["device"], certificates)
            await self._pull_again(shown, urls["device"], certificates, first)
            await self._retire(shown, urls["device"], certificates, digest)
            stage.say()
            stage.title("Done: every step above was checked, not just printed.")
            if not self._once:
                await self._stay(shown, running, digest)

    async def _own_registry(self, stack: AsyncExitStack) -> Shown:
        registry = DemoRegistry(
            username=USER,
            password=self._password,
            key=secrets.token_bytes(32),
            clock=SystemClock(),
        )
        image = make_image()
        registry.add(REPOSITORY, image, TAG)
        unsigned = registry.add(
            REPOSITORY, make_image(line="Nobody signed me.", payload_bytes=4096), UNSIGNED_TAG
        )
        await registry.start()
        stack.push_async_callback(registry.close)
        self._registry = registry
        self._stage.proven(
            f"an upstream registry at {registry.host} that demands bearer tokens, holding "
            f"{REPOSITORY}:{TAG} for two architectures ({size(image.size)})"
        )
        return Shown(registry.host, REPOSITORY, TAG, unsigned)

    @asynccontextmanager
    async def _facade(self) -> AsyncIterator[Running]:
        folder = StateFolder(self._folder)
        folder.create()
        own = {
            "FACADE_DEVICE__LISTEN": "127.0.0.1:0",
            "FACADE_OPERATOR__LISTEN": "127.0.0.1:0",
            "FACADE_METRICS__LISTEN": "127.0.0.1:0",
            "FACADE_UPSTREAM__ALLOW_CIDRS": '["127.0.0.0/8"]',
        }
        settings = load(None, {**own, **os.environ})
        with (self._folder / "facade.log").open("a", encoding="utf-8") as log:
            configure(settings.log.level, "json", log)
            facade = started(folder, (), settings, SystemClock(), log=log.fileno())
            async with facade as running:
                yield running

    async def _connect(self, shown: Shown) -> None:
        stage = self._stage
        stage.step("Connect the registry: its password goes in once and is never shown again")
        if self._registry is None:
            await stage.facade("registry", "add", shown.host, "--anonymous")
        else:
            await stage.facade(
                *("registry", "add", shown.host, "--username", USER, "--password-stdin"),
                "--insecure",
                stdin=self._password.reveal(),
            )
        await stage.facade("registry", "test", shown.host, "--repository", shown.repository)
        database = (self._folder / "facade.db").read_bytes()
        check(self._password.reveal().encode() not in database, "the password is in the database")
        stage.proven("it works; the secret is sealed (the database does not hold its bytes)")

    async def _browse(self, shown: Shown) -> None:
        stage = self._stage
        stage.step("Browse its tags")
        listed = await stage.facade("registry", "tags", f"{shown.host}/{shown.repository}")
        names = [tag["name"] for tag in listed["tags"]]
        check(shown.tag in names or listed["clipped"], f"the tag {shown.tag} is not listed")
        stage.proven(f"{len(names)} tags, newest-likely first: {', '.join(names[:6])}")

    async def _import(self, shown: Shown) -> Digest:
        stage = self._stage
        stage.step("Import one: walked, checked, and signed for the fleet dev")
        done = await stage.facade("artifact", "import", shown.reference, "--fleet", "dev")
        [result] = done["results"]
        check(result["status"] in ("imported", "unchanged"), json.dumps(result))
        stage.proven(f"{result['target']} = {result['digest']}")
        stage.proven("the tag may move now; what is signed will not")
        return Digest.parse(result["digest"])

    async def _enrol(self, certificates: Path) -> None:
        stage = self._stage
        stage.step("Enrol a device: it makes its own key, the development CA signs")
        await stage.facade("device", "issue", DEVICE, "--out", certificates)
        stage.proven(f"{DEVICE} has {', '.join(CLIENT_FILES)}")

    async def _pull(self, shown: Shown, url: str, certificates: Path, layout: str) -> int:
        stage = self._stage
        stage.step("Pull it as that device: metadata verified from its own pinned root, then bytes")
        before = self._requests()
        count, seconds = await self._pulled(shown, url, certificates, layout)
        stage.proven(
            f"{size(count)} in {seconds:.2f} s, every byte verified; an OCI layout came out"
        )
        if before is not None:
            after = self._requests() or before
            stage.proven(f"the registry sent {after['blob'] - before['blob']} blobs")
        return count

    async def _refuse(self, shown: Shown, url: str, certificates: Path) -> None:
        stage = self._stage
        stage.step("Ask for a digest of the same repository that nobody signed")
        unsigned = shown.unsigned or Digest.of(secrets.token_bytes(16))
        before = self._requests()
        status, body = await self._manifest(shown, url, certificates, unsigned)
        [error] = body["errors"]
        check(status == 403 and error["detail"]["reason"] == "not-signed", json.dumps(body))
        check(before == self._requests(), "the refusal asked the registry")
        stage.proven(
            f"HTTP {status} {error['code']}, {error['detail']['reason']}: {error['message']}"
        )
        stage.proven("decided from signed metadata alone: the registry was not asked")

    async def _pull_again(self, shown: Shown, url: str, certificates: Path, first: int) -> None:
        stage = self._stage
        stage.step("Pull the image again: from the cache")
        before = self._requests()
        count, seconds = await self._pulled(shown, url, certificates, "second.oci")
        check(count == first, "the second pull brought other bytes")
        check(before == self._requests(), "the second pull asked the registry")
        asked = (
            "0 upstream requests" if before is not None else "every block checked as it was read"
        )
        stage.proven(f"{size(count)} in {seconds:.2f} s, {asked}")

    async def _retire(self, shown: Shown, url: str, certificates: Path, digest: Digest) -> None:
        stage = self._stage
        stage.step("Retire the device")
        began = time.monotonic()
        await stage.facade("device", "revoke", DEVICE)
        status, body = await self._manifest(shown, url, certificates, digest)
        [error] = body["errors"]
        check(status == 403 and error["detail"]["reason"] == "device-revoked", json.dumps(body))
        stage.proven(f"refused {time.monotonic() - began:.2f} s later: {error['message']}")

    def _requests(self) -> dict[str, int] | None:
        """What the demo's own registry answered so far; None = not ours to count."""
        if self._registry is None:
            return None
        return {kind: self._registry.requests[kind] for kind in ("token", "manifest", "blob")}

    async def _pulled(
        self, shown: Shown, url: str, certificates: Path, layout: str
    ) -> tuple[int, float]:
        name = shown.repository.rpartition("/")[2]
        output = self._folder / layout
        began = time.monotonic()
        await self._stage.facade(
            *("pull", f"dev/{name}/{shown.tag}", "--url", url, "-o", output),
            *("--cert", certificates / "client.cert", "--key", certificates / "client.key"),
            *("--ca", certificates / "ca.crt", "--root", self._folder / "root.json"),
        )
        seconds = time.monotonic() - began
        blobs = list((output / "blobs" / "sha256").iterdir())
        for blob in blobs:
            data = await asyncio.to_thread(blob.read_bytes)
            check(Digest.of(data).hex == blob.name, f"{blob} does not match its name")
        return sum(blob.stat().st_size for blob in blobs), seconds

    async def _manifest(
        self, shown: Shown, url: str, certificates: Path, digest: Digest
    ) -> tuple[int, dict[str, list[dict[str, dict[str, str]]]]]:
        context = ssl.create_default_context(cafile=certificates / "ca.crt")
        context.load_cert_chain(certificates / "client.cert", certificates / "client.key")
        path = f"/v2/{shown.path}/manifests/{digest}"
        self._stage.say(f"GET {path}")
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.get(url + path) as response,
        ):
            return response.status, await response.json(content_type=None)

    async def _stay(self, shown: Shown, running: Running, digest: Digest) -> None:
        stage = self._stage
        address = running.server.urls["device"].removeprefix("https://")
        certificates = self._folder / "kiosk-8"
        stage.say()
        stage.title("It stays up until Ctrl-C. To pull with podman, in another terminal:")
        await stage.facade("device", "issue", "dev/kiosk-8", "--out", certificates)
        stage.say(f"podman pull --cert-dir {certificates} {address}/{shown.path}@{digest}")
        stage.say()
        stage.title("Or configure a runtime for good (see also: facade runtime-config --help):")
        printed = await stage.facade(
            "runtime-config", "podman", "--facade", address, "--registry", shown.host
        )
        for copy in printed["copies"]:
            stage.say(f"cp {certificates / copy['source']} {copy['target']}")
        for file in printed["files"]:
            stage.say(f"{file['path']}:")
            for line in file["content"].splitlines():
                stage.say(f"    {line}")
        stage.say()
        stage.say(f"Operator commands work with: export FACADE_STATE={self._folder}")
        stage.say(f"Log: {self._folder / 'facade.log'}")
        running.server.heed_signals()
        await running.server.wait()
