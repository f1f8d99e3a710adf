"""Broken transfers are hidden; wrong ones are not."""

from pathlib import Path

import pytest

from facade.errors import Denied, FacadeError, Integrity, Unavailable, Upstream
from facade.reasons import Reason
from facade.serving.blobs.limits import TransferLimits
from facade.serving.blobs.local import LocalStore
from facade.upstream.retry import RetryPolicy
from tests.support.blob_source import Answer, ScriptedSource
from tests.support.blobs import (
    CONNECTION,
    MEBI,
    REPOSITORY,
    get,
    idle,
    key_of,
    make_content,
    make_executor,
    open_cache,
    read_all,
)
from tests.support.clock import FakeClock

CONTENT = make_content(MEBI + 4321)
SIZE = len(CONTENT)
FLAT = TransferLimits(resume=RetryPolicy(attempts=3, base_seconds=1, chance=lambda: 0.5))


def flipped(position: int, content: bytes = CONTENT) -> bytes:
    wrong = bytearray(content)
    wrong[position] ^= 1
    return bytes(wrong)


def refused(
    status: int, reason: Reason = Reason.UPSTREAM_REFUSED, after: float | None = None
) -> Upstream:
    return Upstream("The registry said no.", reason=reason, status=status, retry_after=after)


async def leave_partial(root: Path, data: bytes) -> None:
    """What a killed process leaves behind."""
    with make_executor() as executor:
        store = LocalStore.at(root, executor)
        ingest = await store.ingest(key_of(CONTENT), SIZE, lambda _: None)
        ingest.write(memoryview(data))
        await ingest.close(keep=True)


async def test_it_resumes_where_it_stopped_with_the_strong_etag(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT, Answer(cut_at=700_000, etag='"v1"'), Answer(cut_at=SIZE - 1))
    async with open_cache(tmp_path) as bench:
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT
        assert source.opened == [(0, None), (700_000, '"v1"'), (SIZE - 1, None)]


async def test_a_break_before_the_first_byte_of_a_body_is_tried_again(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT, Answer(cut_at=0))
    async with open_cache(tmp_path) as bench:
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT


async def test_a_registry_that_ignores_range_is_skipped_through(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT, Answer(cut_at=700_001), Answer(ignore_range=True, chunk=1000))
    async with open_cache(tmp_path) as bench:
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT


async def test_pauses_grow_without_progress_and_attempts_are_bounded(tmp_path: Path) -> None:
    clock = FakeClock(auto=True)
    source = ScriptedSource(CONTENT, *[Answer(cut_at=1000)] * 3)
    async with open_cache(tmp_path, clock=clock, limits=FLAT) as bench:
        with pytest.raises(Upstream):
            await read_all(await get(bench, source, CONTENT))
        # The first break came after progress, the next two did not.
        assert clock.slept == [0.5, 1.0]
        assert [offset for offset, _ in source.opened] == [0, 1000, 1000]
        # What came is kept: the next request goes on there.
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT
        assert source.opened[-1] == (1000, None)


async def test_progress_resets_the_attempts(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT, *[Answer(cut_at=1000 * n) for n in range(1, 9)])
    async with open_cache(tmp_path, limits=FLAT) as bench:
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT


async def test_retry_after_is_honoured_within_reason(tmp_path: Path) -> None:
    clock = FakeClock(auto=True)
    busy = refused(429, Reason.UPSTREAM_RATE_LIMITED, after=7.0)
    source = ScriptedSource(CONTENT, Answer(cut_at=1000), Answer(refuse=busy))
    async with open_cache(tmp_path, clock=clock, limits=FLAT) as bench:
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT
        assert clock.slept == [0.5, 7.0]
    busy = refused(429, Reason.UPSTREAM_RATE_LIMITED, after=3600.0)
    content = make_content(SIZE, seed=2)
    source = ScriptedSource(content, Answer(cut_at=1000), Answer(refuse=busy))
    async with open_cache(tmp_path, clock=clock, limits=FLAT) as bench:
        with pytest.raises(Upstream) as caught:
            await read_all(await get(bench, source, content))
        assert caught.value.reason is Reason.UPSTREAM_RATE_LIMITED


@pytest.mark.parametrize(
    "error",
    [
        refused(404, Reason.UPSTREAM_NOT_FOUND),
        refused(403),
        Denied("Gone.", reason=Reason.HOST_NOT_CONNECTED),
    ],
)
async def test_a_final_refusal_in_the_middle_ends_it(tmp_path: Path, error: FacadeError) -> None:
    source = ScriptedSource(CONTENT, Answer(cut_at=1000), Answer(refuse=error))
    async with open_cache(tmp_path) as bench:
        with pytest.raises(type(error)) as caught:
            await read_all(await get(bench, source, CONTENT))
        assert caught.value.reason is error.reason
        assert len(source.opened) == 2


async def test_another_range_than_asked_for_ends_it(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT, Answer(cut_at=1000), Answer(from_offset=2000))
    async with open_cache(tmp_path) as bench:
        with pytest.raises(Upstream, match="another range"):
            await read_all(await get(bench, source, CONTENT))


@pytest.mark.parametrize("total", [SIZE - 1, SIZE + 1, 0])
async def test_a_wrong_announced_length_is_integrity_before_any_byte(
    tmp_path: Path, total: int
) -> None:
    source = ScriptedSource(CONTENT, Answer(total=total))
    async with open_cache(tmp_path) as bench:
        stream = await get(bench, source, CONTENT)
        with pytest.raises(Integrity, match="announces"):
            await anext(aiter(stream.chunks()))
        await stream.aclose()


@pytest.mark.parametrize("actual", [CONTENT[:-1], CONTENT + b"x", b"", CONTENT[:-MEBI]])
async def test_a_wrong_length_without_announcement_is_integrity(
    tmp_path: Path, actual: bytes
) -> None:
    source = ScriptedSource(CONTENT, Answer(content=actual, total=None))
    async with open_cache(tmp_path) as bench:
        with pytest.raises(Integrity):
            await read_all(await get(bench, source, CONTENT))
        assert len(source.opened) == 1


async def test_an_end_that_comes_early_though_more_was_announced_is_a_break(
    tmp_path: Path,
) -> None:
    source = ScriptedSource(CONTENT, Answer(content=CONTENT[:1000], total=SIZE))
    async with open_cache(tmp_path) as bench:
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT
        assert [offset for offset, _ in source.opened] == [0, 1000]


async def test_a_break_behind_the_last_byte_is_no_break(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT + b"x", Answer(cut_at=SIZE, total=SIZE))
    async with open_cache(tmp_path) as bench:
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT
        assert len(source.opened) == 1


async def test_a_mismatch_is_told_for_a_while_without_another_fetch(tmp_path: Path) -> None:
    clock = FakeClock()
    source = ScriptedSource(CONTENT, Answer(content=flipped(SIZE - 1)))
    limits = TransferLimits(integrity_seconds=60)
    async with open_cache(tmp_path, clock=clock, limits=limits) as bench:
        with pytest.raises(Integrity):
            await read_all(await get(bench, source, CONTENT))
        await idle(bench)
        with pytest.raises(Integrity) as caught:
            await get(bench, source, CONTENT)
        assert caught.value.retry_after == 60
        assert len(source.opened) == 1
        assert bench.observer.count("integrity_failed") == 1
        assert list(bench.store.objects()) == []
        clock.advance(61)
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT
        assert source.opened == [(0, None), (0, None)]


async def test_a_mismatch_after_a_break_is_fetched_once_from_zero(tmp_path: Path) -> None:
    # The second answer is of another content: what was there and what came do not fit.
    source = ScriptedSource(CONTENT, Answer(cut_at=1000), Answer(content=flipped(5000)))
    async with open_cache(tmp_path, limits=TransferLimits(strict=True)) as bench:
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT
        assert [offset for offset, _ in source.opened] == [0, 1000, 0]
        assert bench.observer.count("integrity_failed") == 0


async def test_a_reader_that_has_sent_void_bytes_is_cut_and_others_go_on(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT, Answer(cut_at=500_000), Answer(content=flipped(600_000)))
    async with open_cache(tmp_path) as bench:
        stream, small = await get(bench, source, CONTENT), await get(bench, source, CONTENT)
        with pytest.raises(Unavailable, match="ask again"):
            await read_all(stream)
        assert await read_all(small, 0, 10) == CONTENT[:10]
        await idle(bench)
        assert (await get(bench, source, CONTENT)).outcome == "hit"


async def test_it_is_fetched_from_zero_only_once(tmp_path: Path) -> None:
    wrong = flipped(5000)
    answers = [Answer(cut_at=1000), Answer(content=wrong), Answer(content=wrong, cut_at=2000)]
    source = ScriptedSource(CONTENT, *answers, Answer(content=wrong))
    async with open_cache(tmp_path, limits=TransferLimits(strict=True)) as bench:
        with pytest.raises(Integrity):
            await read_all(await get(bench, source, CONTENT))
        assert [offset for offset, _ in source.opened] == [0, 1000, 0, 2000]


async def test_a_content_that_became_shorter_is_fetched_from_zero(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT, Answer(cut_at=1000), Answer(refuse=refused(416)))
    async with open_cache(tmp_path, limits=TransferLimits(strict=True)) as bench:
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT
        assert [offset for offset, _ in source.opened] == [0, 1000, 0]


async def test_a_partial_of_a_killed_process_is_resumed(tmp_path: Path) -> None:
    await leave_partial(tmp_path, CONTENT[:700_003])
    source = ScriptedSource(CONTENT)
    async with open_cache(tmp_path) as bench:
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT
        assert source.opened == [(700_003, None)]


async def test_a_partial_that_is_whole_needs_no_request(tmp_path: Path) -> None:
    await leave_partial(tmp_path, CONTENT)
    source = ScriptedSource(CONTENT)
    async with open_cache(tmp_path) as bench:
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT
        assert source.opened == []
        await idle(bench)
        assert (await get(bench, source, CONTENT)).outcome == "hit"


@pytest.mark.parametrize("length", [10_000, SIZE])
async def test_a_partial_with_zeros_after_a_power_loss_is_fetched_from_zero(
    tmp_path: Path, length: int
) -> None:
    await leave_partial(tmp_path, CONTENT[:5000] + bytes(length - 5000))
    source = ScriptedSource(CONTENT)
    async with open_cache(tmp_path, limits=TransferLimits(strict=True)) as bench:
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT
        assert source.opened[-1] == (0, None)
        assert bench.observer.count("integrity_failed") == 0


async def test_a_mismatch_leaves_no_partial(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT, Answer(content=flipped(0)))
    async with open_cache(tmp_path) as bench:
        with pytest.raises(Integrity):
            await read_all(await get(bench, source, CONTENT))
        await idle(bench)
    assert list((tmp_path / "ingest").iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, 1000, MEBI + 1])
async def test_sha512(tmp_path: Path, size: int) -> None:
    content = make_content(size)
    key = key_of(content, "sha512")
    source = ScriptedSource(content)
    async with open_cache(tmp_path) as bench:
        for outcome in ("miss", "hit"):
            stream = await bench.cache.get(CONNECTION, REPOSITORY, key.digest, size, source)
            assert stream.outcome == outcome
            assert await read_all(stream) == content
            await idle(bench)
        assert len(source.opened) == 1
