"""A `HotStore` in memory that passes the same contract suite as the local one.

Guarantees: the port's; `capacity` makes it full at any byte. Keeps everything in memory, knows no
other process, checks reads by the digest of the whole.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from facade.errors import Integrity, Unavailable, Upstream
from facade.oci.digest import Digest
from facade.serving.blobs.port import BLOCK_BYTES, BlobKey, Busy, Feed, Found


@dataclass
class Stored:
    """An object."""

    data: bytearray
    origin: str
    users: int = 0


@dataclass
class MemoryStore:
    """Implements `HotStore`.

    Arguments:
        capacity: bytes of partials and objects together that fit.
        can_publish: False = full when it comes to the last step.
    """

    capacity: int = 1 << 40
    can_publish: bool = True
    kept: dict[Digest, Stored] = field(default_factory=dict)
    partials: dict[BlobKey, bytearray] = field(default_factory=dict)
    locked: set[BlobKey] = field(default_factory=set)
    quarantined: dict[Digest, Stored] = field(default_factory=dict)

    async def open(self, digest: Digest) -> "MemoryReader | None":
        await asyncio.sleep(0)
        stored = self.kept.get(digest)
        return None if stored is None else MemoryReader(digest, stored)

    def opened(self, digest: Digest) -> "MemoryReader | None":
        stored = self.kept.get(digest)
        return None if stored is None else MemoryReader(digest, stored)

    async def ingest(self, key: BlobKey, size: int, feed: Feed) -> "MemoryIngest":
        await asyncio.sleep(0)
        if key in self.locked:
            raise Busy("Another writes it.")
        data = self.partials.setdefault(key, bytearray())
        if len(data) > size:
            data.clear()
        feed(memoryview(bytes(data)))
        self.locked.add(key)
        return MemoryIngest(self, key, data, superseded=key.digest in self.kept)

    async def find(self, key: BlobKey, size: int) -> Found:
        reader = await self.open(key.digest)
        if reader is not None or key in self.locked or self.partials.get(key):
            return Found(reader=reader)
        return Found(begun=await self.ingest(key, size, lambda _: None))

    async def quarantine(self, digest: Digest) -> None:
        stored = self.kept.pop(digest, None)
        if stored is not None:
            self.quarantined[digest] = stored

    def set_aside(self, digest: Digest) -> bool:
        return digest in self.quarantined

    async def remove(self, digest: Digest) -> int | None:
        stored = self.kept.get(digest)
        if stored is None or stored.users:
            return None
        return len(self.kept.pop(digest).data)

    def objects(self) -> Iterator[tuple[Digest, int]]:
        return iter([(digest, len(stored.data)) for digest, stored in self.kept.items()])

    def used(self) -> int:
        """Bytes held."""
        objects = sum(len(stored.data) for stored in self.kept.values())
        return objects + sum(map(len, self.partials.values()))

    def flip(self, digest: Digest, offset: int) -> None:
        """Spoil one bit of an object."""
        self.kept[digest].data[offset] ^= 1


class MemoryReader:
    """Implements `BlobReader`."""

    def __init__(self, digest: Digest, stored: Stored) -> None:
        self._digest = digest
        self._stored = stored
        self.size = len(stored.data)
        self.origin = stored.origin
        self._open = True
        stored.users += 1

    async def read(self, offset: int, length: int) -> memoryview:
        return self.read_now(offset, length)

    def read_now(self, offset: int, length: int) -> memoryview:
        data = bytes(self._stored.data)
        if not self._digest.matches(data):
            raise Integrity("A stored object was changed.")
        stop = min(offset + length, (offset // BLOCK_BYTES + 1) * BLOCK_BYTES)
        return memoryview(data)[offset:stop]

    def close(self) -> None:
        if self._open:
            self._open = False
            self._stored.users -= 1


class MemoryIngest:
    """Implements `Ingest`."""

    def __init__(
        self, store: MemoryStore, key: BlobKey, data: bytearray, *, superseded: bool
    ) -> None:
        self.superseded = superseded
        self._store = store
        self._key = key
        self._data = data
        self._published = False

    @property
    def have(self) -> int:
        return len(self._data)

    def write(self, data: memoryview) -> None:
        if self._store.used() + len(data) > self._store.capacity:
            raise Unavailable("The store is full.")
        self._data += data

    async def read(self, into: memoryview, offset: int) -> int:
        stop = min(offset + len(into), (offset // BLOCK_BYTES + 1) * BLOCK_BYTES)
        data = bytes(self._data[offset:stop])
        if not data:
            raise Integrity("Bytes kept a moment ago are gone.")
        into[: len(data)] = data
        return len(data)

    def restart(self) -> None:
        self._data.clear()

    def publish(self) -> None:
        if not self._store.can_publish:
            raise Unavailable("The store is full.")
        self._store.partials.pop(self._key, None)
        self._store.kept[self._key.digest] = Stored(bytearray(self._data), str(self._key.host))
        self._published = True

    async def close(self, *, keep: bool, refusal: Upstream | None = None) -> None:
        self._store.locked.discard(self._key)
        if not self._published and not (keep and self._data):
            self._store.partials.pop(self._key, None)
