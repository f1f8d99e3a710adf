"""The devices of a soak: whole pulls, ranges, clients that leave, that are slow, and that ask for what they may not.

Guarantees: every body that ends as promised is hashed; whatever ends otherwise is asked for again, as a runtime
would, until it is there or refused with a reason that may be given (`ledger`).
"""

import asyncio
import contextlib
import hashlib
import random
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from facade.oci.digest import Digest
from tests.soak.ledger import Standing, judge_refusal
from tests.soak.world import REPOSITORY, Artifact, Person, World

ATTEMPTS = 15
THINK_SECONDS = 0.4
BLOCK = 64 * 1024
TIMEOUT = aiohttp.ClientTimeout(total=60, sock_read=30)
UNSIGNED = "sha256:" + "e" * 64


@dataclass(frozen=True, slots=True)
class _Refused(Exception):
    status: int
    reason: str
    retry_after: float


class Device:
    """One device at work.

    Arguments:
        keep_alive: containerd's manner; else a connection per request, as podman and Docker do.
        pace: seconds between blocks that it reads: a slow reader.
    """

    def __init__(
        self, world: World, person: Person, *, seed: int, keep_alive: bool, pace: float = 0.0
    ) -> None:
        self.world = world
        self.person = person
        self.dice = random.Random(seed)
        self.pace = pace
        connector = aiohttp.TCPConnector(force_close=not keep_alive, limit=4)
        self.session = aiohttp.ClientSession(connector=connector, timeout=TIMEOUT)

    async def work(self) -> None:
        """One thing after the other, until cancelled or revoked."""
        jobs = (self.image, self.image, self.image, self.part, self.leave, self.stray)
        async with self.session:
            while not self.person.standing.may_be_refused:
                await self.dice.choice(jobs)()
                await asyncio.sleep(self.dice.random() * 2 * THINK_SECONDS)
            await self.knock()

    async def image(self) -> None:
        """All of an image, as a runtime pulls it."""
        artifact = self._artifact()
        digests = [artifact.image.index, *artifact.image.manifests]
        for digest in dict.fromkeys(digests):
            if not await self.whole("manifests", artifact, digest):
                return
        for digest in artifact.image.blobs:
            if not await self.whole("blobs", artifact, digest):
                return
        self.world.ledger.note("image", "done")

    async def whole(self, kind: str, artifact: Artifact, digest: Digest) -> bool:
        """One manifest or blob, resumed when it is cut; whether it came."""
        have = bytearray()
        refused: _Refused | None = None
        for _ in range(ATTEMPTS):
            asked = time.monotonic()
            headers = {"Range": f"bytes={len(have)}-"} if have else {}
            try:
                async with self._get(kind, artifact, digest, headers) as answer:
                    if answer.status == 200:
                        have.clear()
                    async for block in answer.content.iter_chunked(BLOCK):
                        have += block
                        if self.pace:
                            await asyncio.sleep(self.pace)
            except _Refused as error:
                refused = error
                if not judge_refusal(self._standings(artifact), error.reason):
                    self._problem(f"{kind} {artifact.tag}: {error.status} {error.reason}")
                    return False
                if error.reason in self._standings(artifact):
                    self.world.ledger.note(kind, error.reason)
                    return False
                await asyncio.sleep(min(error.retry_after, 2.0))
            except (aiohttp.ClientError, TimeoutError, ssl.SSLError, OSError) as error:
                self.world.ledger.note(kind, f"cut ({type(error).__name__})")
                await asyncio.sleep(0.2)
            else:
                return self._came(kind, artifact, digest, bytes(have), asked)
        if refused is not None:
            self.world.ledger.note(kind, f"given up: {refused.reason}")
        elif not artifact.standing.may_be_refused and not self.person.standing.may_be_refused:
            self._problem(f"{kind} {artifact.tag} {digest}: cut {ATTEMPTS} times, never refused")
        return False

    async def part(self) -> None:
        """A random range of a blob: just those bytes."""
        artifact = self._artifact()
        digest, data = self.dice.choice(list(artifact.image.blobs.items()))
        start = self.dice.randrange(len(data))
        stop = self.dice.randint(start + 1, len(data))
        await self._once("range", artifact, digest, f"bytes={start}-{stop - 1}", data[start:stop])

    async def leave(self) -> None:
        """Somebody who goes away in the middle of a blob."""
        artifact = self._artifact()
        digest = max(artifact.image.blobs, key=lambda key: len(artifact.image.blobs[key]))
        with contextlib.suppress(_Refused, aiohttp.ClientError, TimeoutError, OSError):
            async with self._get("blobs", artifact, digest, {}) as answer:
                await answer.content.read(self.dice.choice([1, 1000, 300_000]))
                answer.close()
        self.world.ledger.note("blobs", "left")

    async def stray(self) -> None:
        """What it may not have: refused, each with its reason."""
        base = f"/v2/{self.world.registry.host}/{REPOSITORY}"
        path, reason = self.dice.choice(
            [
                (f"{base}/manifests/{UNSIGNED}", "not-signed"),
                (f"{base}/manifests/latest", "by-tag"),
                (f"{base}/blobs/sha256:abc", "digest-invalid"),
                (f"/v2/elsewhere.example/x/manifests/{UNSIGNED}", "not-signed"),
                (f"{base}/tags/list", "listing"),
                ("/tuf/other.json", "not-found"),
                ("/%00/..//", "not-found"),
            ]
        )
        url = f"https://{self.world.facade.device}{path}"
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self.session.get(url, ssl=self.person.context) as answer:
                said = await _reason(answer)
                if said == reason or (
                    said == "device-revoked" and self.person.standing.may_be_refused
                ):
                    self.world.ledger.note("stray", said)
                else:
                    self._problem(f"stray {path}: {answer.status} {said!r}, not {reason}")

    async def knock(self) -> None:
        """After it was revoked: refused, with the reason."""
        artifact = self._artifact()
        for _ in range(3):
            await self.whole("manifests", artifact, artifact.image.index)
            await asyncio.sleep(0.2)

    async def _once(
        self, kind: str, artifact: Artifact, digest: Digest, span: str, right: bytes
    ) -> None:
        try:
            async with self._get("blobs", artifact, digest, {"Range": span}) as answer:
                data = await answer.read()
        except _Refused as error:
            if judge_refusal(self._standings(artifact), error.reason):
                self.world.ledger.note(kind, error.reason)
            else:
                self._problem(f"{kind} {artifact.tag} {span}: {error.status} {error.reason}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.world.ledger.note(kind, f"cut ({type(error).__name__})")
        else:
            if data == right:
                self.world.ledger.served(kind, len(data))
            else:
                self._problem(f"{kind} {artifact.tag} {digest} {span}: wrong bytes")

    def _came(
        self, kind: str, artifact: Artifact, digest: Digest, data: bytes, asked: float
    ) -> bool:
        if hashlib.sha256(data).hexdigest() != digest.hex:
            self._problem(f"{kind} {artifact.tag} {digest}: wrong bytes passed for whole")
            return False
        for what, standing in (("artifact", artifact.standing), ("device", self.person.standing)):
            if not standing.may_be_served(asked):
                self._problem(f"{kind} {artifact.tag} served although the {what} is withdrawn")
        self.world.ledger.served(kind, len(data))
        return True

    @contextlib.asynccontextmanager
    async def _get(
        self, kind: str, artifact: Artifact, digest: Digest, headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        path = f"/v2/{self.world.registry.host}/{REPOSITORY}/{kind}/{digest}"
        url = f"https://{self.world.facade.device}{path}"
        async with self.session.get(url, headers=headers, ssl=self.person.context) as answer:
            if answer.status >= 400:
                retry_after = float(answer.headers.get("Retry-After", "1"))
                raise _Refused(answer.status, await _reason(answer), retry_after)
            yield answer

    def _standings(self, artifact: Artifact) -> dict[str, Standing]:
        return {"not-signed": artifact.standing, "device-revoked": self.person.standing}

    def _artifact(self) -> Artifact:
        return self.dice.choice(self.world.signed)

    def _problem(self, words: str) -> None:
        self.world.ledger.problem(f"{self.person.name}: {words}")


async def _reason(answer: aiohttp.ClientResponse) -> str:
    try:
        document = await answer.json(content_type=None)
        return str(document["errors"][0]["detail"]["reason"])
    except (ValueError, KeyError, TypeError, LookupError):
        return ""
