"""A scriptable `BlobSource`: a registry's blob endpoint, well-behaved until told otherwise.

Guarantees: each `open` takes the next of `answers` (a plain one when none is left) and is noted in
`opened`; nothing is sent past a gate that is shut. Speaks no HTTP: see `registry` for that.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from facade.errors import FacadeError, Upstream
from facade.reasons import Reason
from facade.upstream.pour import Basin, pour_chunks

TRUE_TOTAL = -1


@dataclass
class Answer:
    """How one request is answered.

    Arguments:
        content: what is sent instead of the true content.
        cut_at: offset in the blob at which the transfer breaks.
        ignore_range: send everything from the start.
        total: the size told; TRUE_TOTAL = that of the content, None = none (chunked).
        etag: the validator told.
        refuse: raised instead of answering.
        gates: offset → event; bytes from that offset on wait for it.
        chunk: bytes per chunk.
        from_offset: pretend that the body starts there.
    """

    content: bytes | None = None
    cut_at: int | None = None
    ignore_range: bool = False
    total: int | None = TRUE_TOTAL
    etag: str | None = None
    refuse: FacadeError | None = None
    gates: Mapping[int, asyncio.Event] = field(default_factory=dict)
    chunk: int = 64 * 1024
    from_offset: int | None = None


@dataclass
class Body:
    """Implements `BlobBody`."""

    offset: int
    total: int | None
    etag: str | None
    content: bytes
    answer: Answer

    async def pour(self, basin: Basin) -> None:
        await pour_chunks(self.chunks(), basin)

    async def chunks(self) -> AsyncIterator[bytes]:
        position, end = self.offset, len(self.content)
        stops = sorted({*self.answer.gates, end} | ({self.answer.cut_at or 0}))
        while position < end:
            gate = self.answer.gates.get(position)
            if gate is not None:
                await gate.wait()
            if self.answer.cut_at is not None and position >= self.answer.cut_at:
                raise broken()
            ahead = min(stop for stop in stops if stop > position)
            piece = self.content[position : min(ahead, position + self.answer.chunk)]
            position += len(piece)
            yield piece
            await asyncio.sleep(0)
        gate = self.answer.gates.get(end)
        if gate is not None:
            await gate.wait()


class ScriptedSource:
    """Implements `BlobSource`.

    Arguments:
        content: the true content.
        answers: for the first requests, in order.
        has: what `confirm` says; None = the true size, a number or False (= 404) otherwise.
    """

    def __init__(self, content: bytes, *answers: Answer, has: int | bool = True) -> None:
        self.content = content
        self.answers = list(answers)
        self.opened: list[tuple[int, str | None]] = []
        """(offset, If-Range) of every request so far."""
        self.confirmed = 0
        """How many times `confirm` was asked."""
        self.running = 0
        """How many bodies are being read now."""
        self._has = has

    @asynccontextmanager
    async def open(self, offset: int, etag: str | None) -> AsyncIterator[Body]:
        self.opened.append((offset, etag))
        answer = self.answers.pop(0) if self.answers else Answer()
        if answer.refuse is not None:
            raise answer.refuse
        content = self.content if answer.content is None else answer.content
        total = len(content) if answer.total == TRUE_TOTAL else answer.total
        if len(content) in answer.gates:
            total = None  # only what is chunked can keep one waiting behind its last byte
        start = 0 if answer.ignore_range else offset
        if answer.from_offset is not None:
            start = answer.from_offset
        self.running += 1
        try:
            yield Body(start, total, answer.etag, content, answer)
        finally:
            self.running -= 1

    async def confirm(self) -> int | None:
        self.confirmed += 1
        await asyncio.sleep(0)
        if self._has is True:
            return len(self.content)
        return None if self._has is False else self._has


def broken() -> Upstream:
    """What a broken transfer raises."""
    return Upstream("The connection broke.", reason=Reason.UPSTREAM_UNREACHABLE)
