"""Who waits is woken, once; who left is forgotten."""

import asyncio
import gc

import pytest

from facade.serving.blobs.pulse import Pulse


async def test_all_who_wait_are_woken_and_who_comes_later_waits() -> None:
    pulse = Pulse()
    pulse.fire()
    waiting = [asyncio.create_task(pulse.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    pulse.fire()
    late = asyncio.create_task(pulse.wait())
    await asyncio.gather(*waiting)
    await asyncio.sleep(0)
    assert not late.done()
    pulse.fire()
    await late


@pytest.mark.parametrize("fired", [False, True])
async def test_who_leaves_disturbs_nobody(fired: bool) -> None:
    pulse = Pulse()
    one, other = (asyncio.create_task(pulse.wait()) for _ in range(2))
    await asyncio.sleep(0)
    if fired:
        pulse.fire()
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    pulse.fire()
    await other


async def test_who_left_is_forgotten() -> None:
    pulse = Pulse()
    before = _futures()
    for _ in range(50):
        task = asyncio.create_task(pulse.wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    del task
    assert _futures() < before + 10
    pulse.fire()


def _futures() -> int:
    gc.collect()
    return sum(isinstance(each, asyncio.Future) for each in gc.get_objects())
