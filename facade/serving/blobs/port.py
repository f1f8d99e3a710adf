"""The ports of verified content: where it is kept, where it comes from, how it is handed out.

Guarantees of every `BlobStore`: what `open` finds is complete and was verified when it was
published, and every read of it is checked again; what an `Ingest` holds is nobody's content
until `publish`. Does not guarantee that what is kept stays (eviction, quarantine), nor that a
repository may serve it: that is `Possession`.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from facade.errors import Unavailable, Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.upstream.pour import Basin

BLOCK_BYTES = 256 * 1024
"""The unit of checked reads: one authentication tag each, and the most that one chunk holds."""

Outcome = Literal["hit", "join", "miss"]
Feed = Callable[[memoryview], None]


@dataclass(frozen=True, slots=True)
class BlobKey:
    """Whose bytes they are: content is fetched, and possession is kept, per such key.

    Arguments:
        connection_id: `Connection.id`; a removed and re-added host is another connection.
        host: that connection's registry.
        repository, digest: what is asked for there.
    """

    connection_id: str
    host: RegistryHost
    repository: Repository
    digest: Digest


class BlobReader(Protocol):
    """A published object, open. Close it; while open it counts as in use.

    Attributes:
        size: bytes.
        origin: text of the registry host that it was last fetched from ("" = unknown). Like the
            content it is authenticated by the store.
    """

    @property
    def size(self) -> int: ...

    @property
    def origin(self) -> str: ...

    async def read(self, offset: int, length: int) -> memoryview:
        """Checked bytes from `offset`: at least one, at most `length`, never past a block's end.

        The view is valid until the next call. Raises Integrity when the block does not match.
        """
        ...

    def read_now(self, offset: int, length: int) -> memoryview | None:
        """What `read` would give, if nothing has to be waited for. Raises Integrity like `read`."""
        ...

    def close(self) -> None:
        """Give it back; calling again does nothing."""
        ...


class Busy(Unavailable):
    """Another process has this very content under way; it may be followed (`sharing`)."""


class Ingest(Protocol):
    """Bytes on their way in. One writer; `write`, `restart`, `publish` block: call in a thread.

    Attributes:
        have: bytes that are held, from 0 on without a gap.
        superseded: when it began, an object of that digest was there.
    """

    @property
    def have(self) -> int: ...

    @property
    def superseded(self) -> bool: ...

    def write(self, data: memoryview) -> None:
        """Append. Raises Unavailable when the store cannot take it (full, failing): what it holds
        can still be read, but never published or resumed.
        """
        ...

    async def read(self, into: memoryview, offset: int) -> int:
        """Read held bytes into `into`, up to a block's end; returns how many (at least one).

        May be called while a write is under way, and after `publish`; any number at once.
        Raises Integrity when they are no longer what was written.
        """
        ...

    def restart(self) -> None:
        """Forget all bytes. Raises Unavailable like `write`."""
        ...

    def publish(self) -> None:
        """Make it an object, durable when this returns. Only after its digest was verified.

        Raises Unavailable when the store cannot; nothing is published then.
        """
        ...

    async def close(self, *, keep: bool, refusal: Upstream | None = None) -> None:
        """Give it up; `keep` leaves unpublished bytes for a later `ingest` of the same key.

        Without it they are void, which whoever follows them is told; and when there are none, the
        registry's `refusal`, where the store can pass that on.
        """
        ...


class BlobStore(Protocol):
    """Where verified content is kept."""

    async def open(self, digest: Digest) -> BlobReader | None:
        """The published object, or None. What turns out unfit on opening is quarantined: None."""
        ...

    async def ingest(self, key: BlobKey, size: int, feed: Feed) -> Ingest:
        """Start or resume an ingest of `size` bytes in all.

        Arguments:
            feed: told all bytes that are already there, in order, in a thread, before this
                returns; so that the caller can rebuild its hash.

        Raises Busy when another holds the ingest of the same key and size, Unavailable when the
        store cannot take it: full, failing.
        """
        ...

    async def quarantine(self, digest: Digest) -> None:
        """Put the object where no `open` finds it, for a person to look at."""
        ...

    async def remove(self, digest: Digest) -> int | None:
        """Delete the object; its bytes, or None when it was absent or is in use."""
        ...

    def objects(self) -> Iterator[tuple[Digest, int]]:
        """All objects with their sizes. Blocks: drive it in a thread."""
        ...


class Found(NamedTuple):
    """What a store has of an object; at most one of the two, each to be closed.

    Arguments:
        reader: it, published.
        begun: an ingest of it that holds nothing yet.
    """

    reader: BlobReader | None = None
    begun: Ingest | None = None


class HotStore(BlobStore, Protocol):
    """A store that keeps objects open."""

    async def find(self, key: BlobKey, size: int) -> Found:
        """What `open` finds; else, in the same step, the beginning of an `ingest` of `size` bytes, if it
        can be had at once and nothing is left to go on with: `ingest` goes on, or says why not.
        """
        ...

    def opened(self, digest: Digest) -> BlobReader | None:
        """The published object, if it is open already; None tells nothing."""
        ...


class Possession(Protocol):
    """Which repository was seen to have which content. Losing it costs requests, never trust."""

    async def has(self, key: BlobKey) -> bool:
        """Whether its bytes came verified from that repository, or its registry confirmed it."""
        ...

    async def at_registry(self, host: RegistryHost, digest: Digest) -> bool:
        """Whether any repository of that registry was seen to have it."""
        ...

    async def add(self, key: BlobKey, size: int) -> None:
        """Durable when this returns. Raises Unavailable when it cannot be written."""
        ...

    def proven(self, key: BlobKey) -> None:
        """Remember, in this process only, what another process is recording just now."""
        ...

    def touch(self, digest: Digest) -> None:
        """It was used just now; written later, in batches."""
        ...


class HotPossession(Possession, Protocol):
    """One that remembers what it said."""

    def remembers(self, key: BlobKey) -> bool:
        """Whether `has` is known to be true, without looking; False tells nothing."""
        ...


class BlobBody(Protocol):
    """The body of one upstream answer.

    Attributes:
        offset: where it really starts: 0 when the registry ignored the range.
        total: bytes of the whole blob as the registry says, None when it does not.
        etag: strong validator, or None.
    """

    @property
    def offset(self) -> int: ...

    @property
    def total(self) -> int | None: ...

    @property
    def etag(self) -> str | None: ...

    async def pour(self, basin: Basin, /) -> None:
        """All the bytes, in order. Raises Upstream when the transfer breaks; what `basin` raises."""
        ...


class BlobSource(Protocol):
    """Where the bytes of one key come from."""

    def open(self, offset: int, etag: str | None) -> AbstractAsyncContextManager[BlobBody]:
        """Ask for the bytes from `offset` on; `etag` makes it conditional (If-Range).

        Raises Upstream, Denied.
        """
        ...

    async def confirm(self) -> int | None:
        """Ask whether the repository has it (HEAD): its size, or None. Raises like `open`."""
        ...


class BlobStream(Protocol):
    """Content for one reader. Close it (`aclose`) whatever happens.

    Attributes:
        size: bytes of the whole blob.
        outcome: "hit" from the cache, "join" a running transfer, of another process too, "miss"
            started one.
    """

    @property
    def size(self) -> int: ...

    @property
    def outcome(self) -> Outcome: ...

    def chunks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[memoryview]:
        """Bytes [start, stop), in views of at most BLOCK_BYTES.

        **A view is valid until the next is asked for**: write it out or copy it before. The last
        part comes only when the whole blob was verified; an empty range too waits for that.

        Raises Integrity (wrong bytes or length), Upstream, Denied, Unavailable: whoever has
        sent bytes must then cut the connection.
        """
        ...

    async def aclose(self) -> None:
        """Leave. Disturbs neither the transfer nor other readers."""
        ...
