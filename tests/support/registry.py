"""A scriptable upstream registry over real sockets: the pull side of OCI distribution.

Guarantees: well-behaved, with right lengths, digests, ranges and paging, until a test scripts a path
to misbehave (`tests.support.misbehaviour`); notes every request with its headers, so that tests
count GETs and look for an Authorization where none must be. Demands nothing, Basic, or Bearer
tokens that a `TokenServer` signed. Needs no files and leaves none.

    async with Registry() as registry:
        digest = registry.add_blob("org/app", b"...")
        registry.script("/v2/org/app/blobs/*", truncate(100), times=1)
"""

import fnmatch
import hashlib
import json
import ssl
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from facade.demo.image import Image
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.upstream.connection import Connection, ConnectionSettings
from tests.support.misbehaviour import Misbehaviour
from tests.support.raw_http import Data, RawHttpServer, Repeated, Reply, Seen
from tests.support.registry_answers import Holding, blob, manifest, missing, referrers
from tests.support.registry_auth import (
    Auth,
    BasicAuth,
    BearerAuth,
    NoAuth,
    repository_of,
)

__all__ = ["BasicAuth", "BearerAuth", "NoAuth", "Registry"]


@dataclass(slots=True)
class _Script:
    pattern: str
    method: str | None
    change: Misbehaviour
    times: int | None


class Registry:
    """The registry; use as an async context manager.

    Arguments:
        auth: what it demands; may be replaced while it runs.
        tls: serve https with this context.
        name: the host name by which tests call it (a FakeResolver has to know it).
        page_size: most tags per page, whatever is asked for.
        referrers_api: False = 404, as older registries.
    """

    def __init__(
        self,
        *,
        auth: Auth | None = None,
        tls: ssl.SSLContext | None = None,
        name: str = "127.0.0.1",
        page_size: int = 1000,
        referrers_api: bool = True,
    ) -> None:
        self.auth: Auth = auth or NoAuth()
        self.requests: list[Seen] = []
        self.page_size = page_size
        self.referrers_api = referrers_api
        self.absolute_links = False
        self._name = name
        self.tls = tls
        self._held: dict[str, Holding] = {}
        self._scripts: list[_Script] = []
        self._server = RawHttpServer(self._handle, tls=tls)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Listen; 0 = on any free port."""
        await self._server.start(port=port)

    async def stop(self) -> None:
        """Break all connections; what it holds stays, and it may start again."""
        await self._server.close()

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def connections(self) -> int:
        """How many TCP connections were accepted."""
        return self._server.connections

    @property
    def host(self) -> RegistryHost:
        return RegistryHost(self._name, self.port)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}"

    def connection(self, provider: str = "anonymous", **settings: object) -> Connection:
        """A connection to it, insecure unless it speaks https."""
        base = ConnectionSettings(insecure=self.tls is None)
        return Connection(
            "c1",
            self.host,
            provider,
            settings=replace(base, **settings),  # type: ignore[arg-type]  # names checked by replace
        )

    # What it holds.

    def add_blob(self, repository: str, data: bytes) -> Digest:
        digest = Digest.of(data)
        self._holding(repository).blobs[str(digest)] = Data(data)
        return digest

    def add_repeated_blob(self, repository: str, block: bytes, count: int) -> tuple[Digest, int]:
        """A blob of any size that costs no memory: its digest and size."""
        hasher = hashlib.sha256()
        for _ in range(count):
            hasher.update(block)
        digest = Digest("sha256", hasher.hexdigest())
        content = Repeated(block, count)
        self._holding(repository).blobs[str(digest)] = content
        return digest, content.size

    def add_manifest(
        self,
        repository: str,
        data: bytes,
        media_type: str,
        *tags: str,
        digest: Digest | None = None,
    ) -> Digest:
        digest = digest or Digest.of(data)
        self._holding(repository).manifests[str(digest)] = (media_type, data)
        for tag in tags:
            self.tag(repository, tag, digest)
        return digest

    def add_image(self, repository: str, image: Image, *tags: str) -> Digest:
        """All of an image; its index gets the tags."""
        for data in image.blobs.values():
            self.add_blob(repository, data)
        for media_type, data in image.manifests.values():
            self.add_manifest(repository, data, media_type)
        for tag in tags:
            self.tag(repository, tag, image.index)
        return image.index

    def tag(self, repository: str, tag: str, digest: Digest) -> None:
        self._holding(repository).tags[tag] = str(digest)

    def forget(self, repository: str, digest: Digest) -> None:
        """Delete a manifest or blob."""
        held = self._holding(repository)
        held.manifests.pop(str(digest), None)
        held.blobs.pop(str(digest), None)

    # What it does wrong, and what it has seen.

    def script(
        self,
        pattern: str,
        *changes: Misbehaviour,
        method: str | None = None,
        times: int | None = None,
    ) -> None:
        """Make requests whose path matches (fnmatch) misbehave.

        Arguments:
            changes: one per request, in turn, when there are several; the last one stays.
            times: how many requests a single change lasts; None = for good.
        """
        *first, last = changes
        self._scripts += [_Script(pattern, method, change, 1) for change in first]
        self._scripts.append(_Script(pattern, method, last, times))

    def behave(self) -> None:
        """Drop all scripts."""
        self._scripts.clear()

    def count(self, pattern: str = "*", method: str | None = "GET") -> int:
        """How many requests came for paths that match."""
        return len(self.seen(pattern, method))

    def seen(self, pattern: str = "*", method: str | None = "GET") -> list[Seen]:
        """The requests for paths that match (fnmatch; without query)."""
        return [
            seen
            for seen in self.requests
            if fnmatch.fnmatchcase(seen.path, pattern) and method in (None, seen.method)
        ]

    def _holding(self, repository: str) -> Holding:
        return self._held.setdefault(repository, Holding())

    async def _handle(self, seen: Seen) -> Reply:
        self.requests.append(seen)
        reply = self.auth.refusal(seen) or self._answer(seen)
        for script in self._scripts:
            if script.times == 0 or script.method not in (None, seen.method):
                continue
            if fnmatch.fnmatchcase(seen.path, script.pattern):
                if script.times is not None:
                    script.times -= 1
                return script.change(seen, reply)
        return reply

    def _answer(self, seen: Seen) -> Reply:
        if seen.path == "/v2/":
            return Reply(200, (("Content-Type", "application/json"),), Data(b"{}"))
        repository = repository_of(seen.path)
        if repository is None or repository not in self._held:
            return missing("NAME_UNKNOWN")
        held = self._held[repository]
        kind, _, reference = seen.path.removeprefix(f"/v2/{repository}/").partition("/")
        if kind == "manifests":
            return manifest(held, held.tags.get(reference, reference))
        if kind == "blobs":
            return blob(held.blobs.get(reference), reference, seen)
        if kind == "referrers" and self.referrers_api:
            return referrers(held, reference)
        if kind == "tags":
            return self._tags(held, repository, seen)
        return missing("NOT_FOUND")

    def _tags(self, held: Holding, repository: str, seen: Seen) -> Reply:
        tags = sorted(held.tags)
        last = seen.query.get("last", [""])[0]
        size = min(int(seen.query.get("n", ["1000"])[0]), self.page_size)
        rest = [tag for tag in tags if tag > last]
        page = rest[:size]
        body = json.dumps({"name": repository, "tags": page or None}).encode()
        reply = Reply(200, (("Content-Type", "application/json"),), Data(body))
        if len(rest) > size:
            path = f"/v2/{repository}/tags/list?n={size}&last={page[-1]}"
            target = self.url + path if self.absolute_links else path
            return reply.with_header("Link", f'<{target}>; rel="next"')
        return reply
