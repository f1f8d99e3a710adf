"""Work in a thread, and who waits for it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest

from facade.serving.api.eager import begin
from facade.serving.blobs.threads import run_to_end
from tests.support.blobs import make_executor


async def test_who_waits_is_told_the_result_or_what_was_raised() -> None:
    with make_executor() as executor:
        assert await run_to_end(executor, lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await run_to_end(executor, lambda: 1 // 0)


class AtOnce(Executor):
    """Has done it when `submit` returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


async def test_who_waits_goes_on_in_the_turn_in_which_the_end_is_known() -> None:
    """A turn of the loop less for each way to a thread: a future wakes its task in the next one."""
    order: list[str] = []

    async def wait() -> None:
        order.append(await run_to_end(AtOnce(), lambda: "went on"))

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)  # the end is in the loop's hands now
    asyncio.get_running_loop().call_soon(order.append, "what came after")
    await task
    await asyncio.sleep(0)
    assert order == ["went on", "what came after"]


async def test_a_cancellation_is_raised_once_the_work_has_ended_and_ends_a_timeout() -> None:
    gate = threading.Event()
    with make_executor() as executor:
        asyncio.get_running_loop().call_later(0.05, gate.set)
        with pytest.raises(TimeoutError):
            await _within(0.01, run_to_end(executor, gate.wait))
        assert gate.is_set()
        assert await run_to_end(executor, lambda: 7) == 7


async def test_threads_that_are_stopped_before_they_begin_cancel_who_waits() -> None:
    gate = threading.Event()
    executor = ThreadPoolExecutor(1)
    executor.submit(gate.wait)
    task = asyncio.create_task(run_to_end(executor, lambda: 7))
    await asyncio.sleep(0)
    executor.shutdown(wait=False, cancel_futures=True)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_that_ends_before_its_waiter_is_a_task() -> None:
    got: list[int] = []

    async def work(executor: ThreadPoolExecutor) -> None:
        got.append(await run_to_end(executor, lambda: 7))

    with make_executor() as executor:
        for _ in range(20):
            rest = begin(work(executor))
            assert rest is not None
            executor.submit(int).result()  # both may be told before the task's first step
            async with asyncio.timeout(5):
                await rest
    assert got == [7] * 20


async def test_a_waiter_cancelled_before_it_is_a_task_waits_for_the_end_too() -> None:
    gate = threading.Event()
    undone: list[bool] = []

    async def work(executor: ThreadPoolExecutor) -> None:
        await run_to_end(executor, lambda: gate.wait(5), undone.append)

    with make_executor() as executor:
        rest = begin(work(executor))
        assert rest is not None
        rest.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not rest.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await rest
    assert undone == [True]


async def _within(seconds: float, work: Coroutine[Any, Any, object]) -> None:
    async with asyncio.timeout(seconds):
        await work
