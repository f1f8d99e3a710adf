"""A pull that ends while a partial is being opened, or closed, leaves no file open."""

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from facade.device_client.layout import Partial
from facade.oci.digest import Digest


@pytest.mark.parametrize("steps", range(6))
async def test_cancelled_at_any_step_of_opening(tmp_path: Path, steps: int) -> None:
    """An unclosed file is a ResourceWarning when it is collected, and that fails the test."""
    digest = Digest.of(b"x")
    opening = asyncio.ensure_future(Partial(tmp_path / "p", tmp_path / "b", digest).open())
    for _ in range(steps):
        await asyncio.sleep(0)
    opening.cancel()
    done, _ = await asyncio.wait([opening], timeout=10)
    assert done
    assert opening.cancelled()
    del opening, done
    gc.collect()


@pytest.mark.parametrize("steps", range(4))
async def test_cancelled_while_it_waits_for_a_thread_that_closes(
    tmp_path: Path, steps: int
) -> None:
    """As when several blobs fail at once: the first failure ends those who close theirs."""
    digest = Digest.of(b"x")
    partial = Partial(tmp_path / "p", tmp_path / "b", digest)
    busy = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        await partial.open()
        executor.submit(busy.wait)
        closing = asyncio.ensure_future(partial.__aexit__())
        for _ in range(steps):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.sleep(0)
        busy.set()
        await asyncio.wait([closing], timeout=10)
        assert closing.cancelled()
        if not steps:  # it had not begun
            await partial.__aexit__()
    del partial, closing
    gc.collect()
