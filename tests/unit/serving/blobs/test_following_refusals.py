"""Two caches on one folder, as two processes have them: the registry refuses the one that asked, and the
other is told so without asking.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from facade.clock import SystemClock
from facade.errors import FacadeError, Unavailable, Upstream
from facade.reasons import Reason
from facade.serving.blobs.refused import MAX_WORDS, note, noted
from tests.support.blob_source import Answer, ScriptedSource
from tests.support.blobs import Bench, get, idle, make_content, open_cache, read_all

CONTENT = make_content(300_000)
NAME = "user.facade.refusal"
REFUSALS = [
    Upstream("ghcr.io does not have it.", reason=Reason.UPSTREAM_NOT_FOUND, status=404),
    Upstream("ghcr.io refused it.", reason=Reason.UPSTREAM_REFUSED, status=403),
    Upstream(
        "ghcr.io limits us.", reason=Reason.UPSTREAM_RATE_LIMITED, status=429, retry_after=7.5
    ),
    Upstream("ghcr.io did not answer in time.", reason=Reason.DEADLINE),
]


class Slow(ScriptedSource):
    """Refuses only when it is told to."""

    def __init__(self, refusal: FacadeError) -> None:
        super().__init__(CONTENT, Answer(refuse=refusal))
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    @asynccontextmanager
    async def open(self, offset: int, etag: str | None) -> AsyncIterator[object]:  # type: ignore[override]
        self.asked.set()
        await self.go_on.wait()
        async with super().open(offset, etag) as body:
            yield body


async def refused(one: Bench, other: Bench, refusal: FacadeError, own: ScriptedSource) -> object:
    """What a reader of `other` gets that follows `one`, which is refused; `own` is its own source."""
    slow = Slow(refusal)
    first = asyncio.create_task(read_all(await get(one, slow, CONTENT)))
    await slow.asked.wait()
    following = await get(other, own, CONTENT)
    assert following.outcome == "join"
    second = asyncio.create_task(read_all(following))
    slow.go_on.set()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert results[0] is refusal
    await idle(other)
    return results[1]


@asynccontextmanager
async def two_caches(root: Path) -> AsyncIterator[tuple[Bench, Bench]]:
    async with (
        open_cache(root, clock=SystemClock()) as one,
        open_cache(root, clock=SystemClock()) as other,
    ):
        yield one, other


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda each: each.reason)
async def test_a_refusal_reaches_who_followed_without_a_request_of_its_own(
    tmp_path: Path, refusal: Upstream
) -> None:
    own = ScriptedSource(CONTENT)
    async with two_caches(tmp_path) as (one, other):
        got = await refused(one, other, refusal, own)
        assert isinstance(got, Upstream)
        assert (got.reason, got.message, got.status, got.retry_after) == (
            *(refusal.reason, refusal.message, refusal.status, refusal.retry_after),
        )
        assert own.opened == []
        # It is remembered by neither: who comes next asks again.
        assert await read_all(await get(other, own, CONTENT)) == CONTENT
        await idle(other)
        assert list((tmp_path / "ingest").iterdir()) == []


async def test_what_is_no_answer_of_a_registry_is_not_passed_on(tmp_path: Path) -> None:
    """As where the file system cannot pass anything on: who followed asks himself."""
    own = ScriptedSource(CONTENT)
    async with two_caches(tmp_path) as (one, other):
        assert await refused(one, other, Unavailable("No slot is free."), own) == CONTENT
        assert own.opened == [(0, None)]


async def test_what_is_noted_on_a_partial_that_is_in_use_refuses_nothing(tmp_path: Path) -> None:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(gates={0: gate}))
    async with two_caches(tmp_path) as (one, other):
        first = asyncio.create_task(read_all(await get(one, source, CONTENT)))
        second = asyncio.create_task(read_all(await get(other, ScriptedSource(b""), CONTENT)))
        (partial,) = (tmp_path / "ingest").iterdir()
        fd = os.open(partial, os.O_RDWR)
        note(fd, REFUSALS[0])
        os.close(fd)
        gate.set()
        assert set(await asyncio.gather(first, second)) == {CONTENT}


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"[" * 3_000,
        b"{}",
        b"7",
        b'["upstream-refused", "no"]',
        b'["upstream-refused", "no", 403, null, 1]',
        b'["upstream-refused", "", 403, null]',
        b'["upstream-refused", 3, 403, null]',
        b'["upstream-refused", "no", true, null]',
        b'["upstream-refused", "no", 1000, null]',
        b'["upstream-refused", "no", 403, NaN]',
        b'["upstream-refused", "no", 403, -1]',
        b'["upstream-refused", "no", 403, 1e9]',
        b'["upstream-refused", "no", 403, "1"]',
        b'["not-signed", "no", 403, null]',
        b'["integrity", "no", null, null]',
        b'["whatever", "no", null, null]',
        b'[["upstream-refused"], "no", null, null]',
    ],
)
def test_what_is_no_refusal_of_a_registry_is_none(tmp_path: Path, value: bytes) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        os.setxattr(fd, NAME, value)
        assert noted(fd) is None
    finally:
        os.close(fd)


def test_a_long_message_is_cut(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        assert noted(fd) is None
        note(fd, Upstream("x" * 10_000, reason=Reason.UPSTREAM_REFUSED, status=500))
        got = noted(fd)
    finally:
        os.close(fd)
    assert got is not None
    assert got.message == "x" * MAX_WORDS
