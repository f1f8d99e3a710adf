"""Where a transfer's bytes are to come from: an ingest of its own, what another process has under way,
or what was published meanwhile.

Guarantees: while another process fetches the same key and size, nothing is fetched here; when that
process dies, exactly one of those that followed it goes on with what it left; what is followed counts
as verified only when the published tags, or a hash of one's own, say so. Does not fetch.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from facade.errors import Integrity, Unavailable, Upstream
from facade.serving.blobs.limits import TransferPorts
from facade.serving.blobs.port import BlobKey, BlobReader, Busy, Ingest, Outcome
from facade.serving.blobs.sharing import Kept, Tail, read_along
from facade.serving.blobs.verify import StreamVerifier

Stored = Callable[[], Awaitable[BlobReader | None]]


class Holder(Protocol):
    """The transfer, as a claim sees it."""

    def place(self, outcome: Outcome) -> None:
        """Where the bytes come from: another process's transfer, the store, or one's own."""
        ...

    def reads_from(self, kept: Kept) -> None:
        """Readers read there from now on, as far as it has bytes; it is closed with the holder."""
        ...

    def grew(self) -> None:
        """More can be read."""
        ...

    def starts_over(self) -> None:
        """What could be read is void; there is nothing for now."""
        ...


@dataclass(frozen=True, slots=True)
class Claimed:
    """What came of it; the holder reads from what goes with it.

    Arguments:
        complete: everything is there, verified, and kept if it could be.
        ingest: else where the rest is to be put; None when it cannot be kept,
        trouble: for this reason.
    """

    complete: bool = False
    ingest: Ingest | None = None
    trouble: Unavailable | None = None


class Claim:
    """One transfer's. The verifier is told all bytes that are there when the rest is to be fetched.

    Arguments:
        stored: the object, open, if it was published meanwhile and may be had; None = do not look.
        begun: an ingest that holds nothing yet.
    """

    def __init__(
        self,
        key: BlobKey,
        size: int,
        *,
        holder: Holder,
        verifier: StreamVerifier,
        ports: TransferPorts,
        stored: Stored | None,
        begun: Ingest | None = None,
    ) -> None:
        self._key = key
        self._size = size
        self._holder = holder
        self._verifier = verifier
        self._ports = ports
        self._stored = stored
        self._begun = begun
        self.following = False
        """Whether another process is at work just now."""

    async def obtain(self) -> Claimed:
        """Return when there is something to do, or nothing any more.

        Raises Integrity when what another process had under way was wrong, Upstream when the registry
        gave it nothing.
        """
        while True:
            begun, self._begun = self._begun, None
            try:
                ingest = begun or await self._ports.store.ingest(
                    self._key, self._size, self._verifier.update
                )
            except Busy as busy:
                claimed = await self._follow(busy)
            except Unavailable as error:
                self._verifier.restart()
                claimed = Claimed(trouble=error)
            else:
                claimed = await self._own(ingest)
            if claimed is not None:
                self._holder.place("miss")
                return claimed

    async def _own(self, ingest: Ingest) -> Claimed:
        self._holder.reads_from(ingest)  # and closes it, whatever happens
        if ingest.superseded and not ingest.have and self._stored is not None:
            reader = await self._stored()
            if reader is not None:
                # Another process published it after we had looked for it.
                self._holder.place("hit")
                self._holder.reads_from(_StoredBytes(reader))
                await ingest.close(keep=False)
                return Claimed(complete=True)
        return Claimed(ingest=ingest)

    async def _follow(self, busy: Busy) -> Claimed | None:
        """See another process's transfer through; None = try anew."""
        if self._ports.tails is None:
            return Claimed(trouble=busy)
        tail = await self._ports.tails.follow(self._key, self._size)
        if tail is None:  # over since
            return None
        self._holder.place("join")
        self._holder.reads_from(tail)
        self.following = True
        try:
            return await self._after(tail)
        finally:
            self.following = False

    async def _after(self, tail: Tail) -> Claimed | None:
        ending = await read_along(tail, self._ports.clock, self._holder.grew)
        if ending == "complete":
            self._ports.possession.proven(self._key)
            return Claimed(complete=True)
        if ending == "left":
            try:
                ingest = await tail.take_over(self._verifier.update)
            except Unavailable as error:
                self._verifier.restart()
                return await self._alone(tail, error)
            if ingest.have < tail.have:  # readers may have what is not there any more
                await ingest.close(keep=False)
                raise Integrity("What another process left has changed.")
            self._holder.reads_from(ingest)
            await tail.close(keep=True)
            return Claimed(ingest=ingest)
        if ending in ("given up", "silent") and tail.have:
            return await self._alone(tail, Unavailable("Another process could not keep it."))
        self._holder.starts_over()
        await tail.close(keep=False)
        if tail.refusal is not None:
            raise tail.refusal
        if ending == "silent":
            return Claimed(trouble=Unavailable("Another process has it and does not get on."))
        if ending == "void":
            raise Integrity("What the registry sent did not match its digest.")
        return None

    async def _alone(self, tail: Tail, trouble: Unavailable) -> Claimed:
        """Go on from what was read along, without keeping."""
        await tail.replay(self._verifier.update)
        if tail.have == self._size:
            self._verifier.verdict()
            return Claimed(complete=True)
        return Claimed(trouble=trouble)


class _StoredBytes:
    """Implements `Kept` on an object of the store. Takes over the reader."""

    def __init__(self, reader: BlobReader) -> None:
        self._reader = reader
        self._turn = asyncio.Lock()
        self.have = reader.size

    async def read(self, into: memoryview, offset: int) -> int:
        async with self._turn:  # the reader has one buffer
            view = await self._reader.read(offset, len(into))
            into[: len(view)] = view
            return len(view)

    async def close(self, *, keep: bool, refusal: Upstream | None = None) -> None:
        self._reader.close()
