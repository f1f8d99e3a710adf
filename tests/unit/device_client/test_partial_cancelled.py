"""A pull that ends while a partial is being opened leaves no file open."""

import asyncio
import gc
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
