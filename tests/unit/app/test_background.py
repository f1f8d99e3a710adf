"""Background tasks that end before their time: told, and what guards revocation runs again."""

import asyncio
from contextlib import AsyncExitStack

from structlog.testing import capture_logs

from facade.app.background import background, kept_running


async def test_one_that_ends_is_told_with_its_name() -> None:
    async def broken() -> None:
        raise RuntimeError("a defect")

    with capture_logs() as logs:
        async with AsyncExitStack() as stack:
            background(stack, broken())
            await asyncio.sleep(0.01)
    [line] = logs
    assert (line["event"], line["log_level"]) == ("background_task_ended", "error")
    assert "broken" in line["task"]
    assert isinstance(line["exc_info"], RuntimeError)


async def test_what_must_run_runs_again_and_ends_with_its_stack() -> None:
    runs = 0
    third = asyncio.Event()

    async def guard() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            third.set()
            await asyncio.Event().wait()
        raise RuntimeError("a defect")

    with capture_logs() as logs:
        async with AsyncExitStack() as stack:
            kept_running(stack, guard, pause=lambda: asyncio.sleep(0))
            async with asyncio.timeout(10):
                await third.wait()
    assert [line["event"] for line in logs] == ["background_task_ended"] * 2
