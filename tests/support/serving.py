"""Fakes of what a pull stands on: the control port, a registry client, and a cache in memory.

Guarantees: each does what its port says and notes what it was asked; nothing opens a socket or a
file. `MemoryBlobs` verifies like the real cache (digest and size before the last byte), so that
a test cannot pass on bytes that the real one would refuse.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from facade.device import Device
from facade.errors import FacadeError, Integrity, Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.secret import Secret
from facade.serving.blobs.port import BlobSource, Outcome
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Connection, Scope
from facade.upstream.pour import Basin, pour_chunks
from facade.wings import ControlSnapshot, Event, Revocations
from tests.support.basin import poured
from tests.support.clock import EPOCH

Place = tuple[RegistryHost, Repository, Digest]


def a_device(
    fleet: str = "dev", name: str = "kiosk-7", *, now: float = EPOCH, days: float = 30
) -> Device:
    """A device whose certificate began a day before `now` and lasts for `days`."""
    moment = datetime.fromtimestamp(now, UTC)
    return Device(
        fleet,
        name,
        "CN=Test CA",
        "1a",
        "ab" * 32,
        moment - timedelta(days=1),
        moment + timedelta(days=days),
        moment + timedelta(days=days),
    )


def a_connection(host: str = "ghcr.io", connection_id: str = "c1") -> Connection:
    return Connection(connection_id, RegistryHost.parse(host), "anonymous")


class FakeControl:
    """Implements `ControlPort`; tests change its snapshot and read its events."""

    def __init__(self, *connections: Connection) -> None:
        self.current = ControlSnapshot(
            1, {connection.host: connection for connection in connections}
        )
        self.manifests: dict[Place, bytes] = {}
        self.asked: list[Place] = []
        self.events: list[Event] = []
        self.silent = 0.0
        self.gate: asyncio.Event | None = None
        self.header: str | None = None
        self.defect: Exception | None = None

    def snapshot(self) -> ControlSnapshot:
        return self.current

    def silent_seconds(self) -> float:
        return self.silent

    def connect(self, connection: Connection) -> None:
        self._change(connections={**self.current.connections, connection.host: connection})

    def disconnect(self, host: RegistryHost) -> None:
        rest = {key: value for key, value in self.current.connections.items() if key != host}
        self._change(connections=rest)

    def revoke(self, fleet: str, name: str, at: float) -> None:
        devices = {**self.current.revocations.devices, (fleet, name): at}
        self._change(revocations=replace(self.current.revocations, devices=devices))

    def restore(self) -> None:
        self._change(revocations=Revocations())

    def keep(self, host: RegistryHost, repository: Repository, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.manifests[host, repository, digest] = data
        return digest

    def _change(self, **changes: object) -> None:
        generation = self.current.generation + 1
        self.current = replace(self.current, generation=generation, **changes)  # type: ignore[arg-type]

    async def authorization(
        self,
        connection: Connection,
        scope: Scope,
        *,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> Authorization:
        return Authorization(None if self.header is None else Secret(self.header), "a1")

    async def closure_manifest(
        self, registry: RegistryHost, repository: Repository, digest: Digest
    ) -> bytes | None:
        self.asked.append((registry, repository, digest))
        if self.defect is not None:
            raise self.defect
        if self.gate is not None:
            await self.gate.wait()
        return self.manifests.get((registry, repository, digest))

    def report(self, event: Event) -> None:
        self.events.append(event)


@dataclass(frozen=True, slots=True)
class Fetched:
    data: bytes


class WholeBody:
    """A body that comes in one piece."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.offset = 0
        self.total: int | None = len(data)
        self.etag: str | None = None

    async def pour(self, basin: Basin) -> None:
        await pour_chunks(self.chunks(), basin)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._data


@dataclass
class FakeRegistryClient:
    """Implements `pulls.ports.UpstreamRegistry` over a dictionary.

    Arguments:
        failures: raised first, one per request.
    """

    content: dict[tuple[Repository, Digest], bytes] = field(default_factory=dict)
    failures: list[FacadeError] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def hold(
        self, repository: Repository, data: bytes, *, as_digest: Digest | None = None
    ) -> Digest:
        """Hold `data`, under a wrong digest if one is given."""
        digest = as_digest or Digest.of(data)
        self.content[repository, digest] = data
        return digest

    async def manifest(
        self, connection: Connection, repository: Repository, reference: Digest, /
    ) -> Fetched:
        return Fetched(self._get("manifest", repository, reference))

    @asynccontextmanager
    async def blob(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        /,
        *,
        offset: int = 0,
        etag: str | None = None,
    ) -> AsyncIterator[WholeBody]:
        yield WholeBody(self._get("blob", repository, digest))

    async def blob_size(
        self, connection: Connection, repository: Repository, digest: Digest, /
    ) -> int | None:
        self.asked.append("head")
        if self.failures:
            raise self.failures.pop(0)
        data = self.content.get((repository, digest))
        return None if data is None else len(data)

    def _get(self, kind: str, repository: Repository, digest: Digest) -> bytes:
        self.asked.append(kind)
        if self.failures:
            raise self.failures.pop(0)
        data = self.content.get((repository, digest))
        if data is None:
            raise Upstream("It is not there.", reason=Reason.UPSTREAM_NOT_FOUND, status=404)
        return data


@dataclass
class MemoryStream:
    """Implements `BlobStream` over bytes."""

    data: bytes
    outcome: Outcome
    closed: bool = False
    piece: int = 4

    @property
    def size(self) -> int:
        return len(self.data)

    async def chunks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[memoryview]:
        end = self.size if stop is None else stop
        for at in range(start, end, self.piece):
            yield memoryview(self.data)[at : min(at + self.piece, end)]

    async def aclose(self) -> None:
        self.closed = True


class MemoryBlobs:
    """Implements `pulls.ports.Blobs`: per (connection, repository, digest), without sharing."""

    def __init__(self) -> None:
        self.contents: dict[tuple[str, Repository, Digest], bytes] = {}
        self.streams: list[MemoryStream] = []
        self.spoiled = False
        self.defect: Exception | None = None

    async def get(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        source: BlobSource,
        /,
    ) -> MemoryStream:
        key = (connection.id, repository, digest)
        outcome: Outcome = "hit"
        if key not in self.contents:
            outcome = "miss"
            async with source.open(0, None) as body:
                data = await poured(body)
            if len(data) != size or not digest.matches(data):
                raise Integrity("The content does not match its digest.")
            self.contents[key] = data
        stream = MemoryStream(self.contents[key], outcome)
        self.streams.append(stream)
        return stream

    def hot(
        self, connection: Connection, repository: Repository, digest: Digest, size: int, /
    ) -> MemoryStream | None:
        data = self.contents.get((connection.id, repository, digest))
        if data is None or len(data) != size:
            return None
        stream = MemoryStream(data, "hit")
        self.streams.append(stream)
        return stream

    async def held(
        self, connection: Connection, repository: Repository, digest: Digest, limit: int, /
    ) -> bytes | None:
        if self.spoiled:
            raise Integrity("The content does not match its digest.")
        data = self.contents.get((connection.id, repository, digest))
        return None if data is None or len(data) > limit else data

    async def put(
        self, connection: Connection, repository: Repository, digest: Digest, data: bytes, /
    ) -> bool:
        if self.defect is not None:
            raise self.defect
        self.contents[connection.id, repository, digest] = data
        return True
