"""`facade demo --once`, as `make demo` runs it."""

import os
import sys
from pathlib import Path

from tests.support.facade_process import run


async def test_every_step_of_the_demo_holds(tmp_path: Path) -> None:
    played = await run(
        *(sys.executable, "-m", "facade.cli.main", "demo", "--once"),
        *("--state", str(tmp_path / "state")),
    )
    assert played.code == 0, played
    assert "0 upstream requests" in played.stdout
    assert "not-signed" in played.stdout
    assert "device was revoked" in played.stdout or "revoked" in played.stdout
    assert played.stderr == "", "logs go into their file"
    assert "not-signed" in (tmp_path / "state" / "facade.log").read_text()
    assert not any(key.startswith("FACADE_") for key in os.environ)


async def test_an_image_that_is_none_is_told() -> None:
    played = await run(
        *(sys.executable, "-m", "facade.cli.main", "demo", "--once", "--image", "alpine")
    )
    assert played.code != 0
    assert "docker.io/library/alpine:3.20" in played.stderr
