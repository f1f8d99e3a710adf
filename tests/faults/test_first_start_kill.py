"""A first start that is killed, or meets a full disk, anywhere is finished by the next one."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root

from facade.up.state import StateFolder

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("how", ["killed", "full"])
async def test_the_next_start_finishes_what_this_one_began(tmp_path: Path, how: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "tests/faults/first_start_process.py"), str(tmp_path), how),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    places = int(out)
    assert places > 12  # PKI, keys, sealing key, metadata, pinned root
    for place in range(1, places + 1):
        state = StateFolder(tmp_path / str(place))
        pinned = state.pinned_root.read_bytes()
        assert pinned == (state.repository / "metadata" / "1.root.json").read_bytes()
        Metadata[Root].from_bytes(pinned).verify_delegate("root", Metadata[Root].from_bytes(pinned))
        assert not (state.repository / "publishing.json").exists()
