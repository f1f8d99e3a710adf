"""What never waits costs no task; what waits goes on as one."""

import asyncio
from contextvars import ContextVar

import pytest

from facade.serving.api.eager import begin

MINE: ContextVar[str] = ContextVar("mine", default="nobody's")


async def test_what_never_waits_has_ended_at_once() -> None:
    done = []

    async def work() -> None:
        done.append(1)

    assert begin(work()) is None
    assert done == [1]


async def test_what_waits_goes_on_and_gets_what_comes_of_it() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    got = []

    async def work() -> None:
        await asyncio.sleep(0)
        got.append(await future)
        await asyncio.sleep(0.001)
        with pytest.raises(KeyError):
            await failing()
        got.append("end")

    async def failing() -> None:
        await asyncio.sleep(0)
        raise KeyError

    task = begin(work())
    assert task is not None
    future.set_result("result")
    await task
    assert got == ["result", "end"]


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_what_waits_is_cancelled_like_any_task(turns: int) -> None:
    forever: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    seen = []

    async def work() -> None:
        try:
            await forever
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0)
            seen.append("tidied up")
            raise

    task = begin(work())
    assert task is not None
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled", "tidied up"]


@pytest.mark.parametrize("waits", [False, True])
async def test_what_it_raises_is_raised(waits: bool) -> None:
    async def work() -> None:
        if waits:
            await asyncio.sleep(0)
        raise KeyError

    if waits:
        task = begin(work())
        assert task is not None
        with pytest.raises(KeyError):
            await task
    else:
        with pytest.raises(KeyError):
            begin(work())


async def test_what_it_binds_stays_its_own() -> None:
    seen = []

    async def work() -> None:
        MINE.set("mine")
        await asyncio.sleep(0)
        seen.append(MINE.get())

    task = begin(work())
    assert MINE.get() == "nobody's"
    assert task is not None
    await task
    assert seen == ["mine"]
