"""Following what another process has under way: the port, and reading along until it is over.

Guarantees: what a `Tail` gives out is what it found in the file, and "complete" means that this very
content was verified. Does not fetch: who is left with the rest goes on by itself (`claim`).
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Literal, Protocol

from facade.clock import Clock
from facade.errors import Integrity, Upstream
from facade.serving.blobs.port import BlobKey, Feed, Ingest

FOLLOW_SECONDS = 0.02
"""How long nothing new is looked for after there was nothing, at least:"""
MAX_FOLLOW_SECONDS = 0.25
"""and at most; between them an eighth of the time since something came. Who follows what a slow registry, or
one that hangs, sends does not look fifty times a second."""
_FOLLOW_SHARE = 8

SILENT_SECONDS = 120.0
"""How long a process that holds the lock may bring nothing. One that works waits 30 s for its turn, 30 s
for the first byte and 30 s between attempts at most; one that hangs must not hang the others."""

Ending = Literal["complete", "left", "restarted", "void", "refused", "given up", "silent"]
"""How another process's transfer ended for a follower:

complete    verified and published, and it is what was read here
left        its process died or stopped; `Tail.take_over` goes on with its bytes
restarted   its bytes were wrong; it fetches them anew, into another file
void        its bytes were wrong, and it gave up
refused     the registry gave it nothing: `Tail.refusal` says why
given up    its bytes are kept nowhere any more, but are right as far as is known
silent      it holds on to the file and brings nothing
"""


class Gone(Integrity):
    """Bytes that a `Tail` had are there no more: begun anew, or given up. Which, is known in a moment."""


class Kept(Protocol):
    """Bytes that can be read while they come (`port.Ingest`, `Tail`).

    Attributes:
        have: bytes that are there, from 0 on without a gap.
    """

    @property
    def have(self) -> int: ...

    async def read(self, into: memoryview, offset: int) -> int:
        """As `port.Ingest.read` says."""
        ...

    async def close(self, *, keep: bool, refusal: Upstream | None = None) -> None:
        """As `port.Ingest.close` says."""
        ...


class Tail(Kept, Protocol):
    """What another process writes. Until it is over, `read` raises Gone for bytes that were taken back.

    Attributes:
        refusal: after "refused".
        cut: set by `read` when it raises Gone: it is worth looking at once.
    """

    @property
    def cut(self) -> asyncio.Event: ...

    @property
    def refusal(self) -> Upstream | None: ...

    async def advance(self) -> Ending | None:
        """Take in some of what came since; None while the other process is at work."""
        ...

    async def take_over(self, feed: Feed) -> Ingest:
        """After "left": the ingest of all that the other process left, told to `feed` first.

        Raises Unavailable when the store cannot take it, Integrity when the bytes changed.
        """
        ...

    async def replay(self, feed: Feed) -> None:
        """Tell `feed` the bytes [0, have). Raises Integrity when they changed."""
        ...


class Tails(Protocol):
    """Where other processes' transfers are found."""

    async def follow(self, key: BlobKey, size: int) -> Tail | None:
        """What is under way, or left, for this key and size; None when nothing is any more."""
        ...


async def read_along(tail: Tail, clock: Clock, grew: Callable[[], None]) -> Ending:
    """Follow to the end; `grew` is called whenever more can be read. Returns how it ended."""
    grown = clock.monotonic()
    while True:
        tail.cut.clear()
        before = tail.have
        ending = await tail.advance()
        if tail.have != before:
            grown = clock.monotonic()
            grew()
        elif ending is None:
            quiet = clock.monotonic() - grown
            if quiet >= SILENT_SECONDS:
                return "silent"
            pause = min(max(FOLLOW_SECONDS, quiet / _FOLLOW_SHARE), MAX_FOLLOW_SECONDS)
            await _first(clock.sleep(pause), tail.cut.wait())
        if ending is not None:
            return ending


async def _first(*waits: Coroutine[None, None, object]) -> None:
    """Return with the first of them, and end the others."""
    tasks = [asyncio.create_task(each) for each in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
