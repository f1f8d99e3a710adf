"""A bench that is told to stop leaves no server behind, and says so."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench.cpu import family
from tests.bench.ends import runs

pytestmark = pytest.mark.slow

_UNDER_WAY_SECONDS = 120.0
_END_SECONDS = 60.0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_every_server(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """The signal again and again, as from an impatient hand."""
    command = [sys.executable, "-m", "tests.bench", "--quick", "--rounds", "1000"]
    with (tmp_path / "said").open("w+") as said:
        bench = subprocess.Popen(
            [*command, "--only", "manifest, keep-alive"], stdout=said, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + _UNDER_WAY_SECONDS
        while "round 1" not in (tmp_path / "said").read_text() and time.monotonic() < deadline:
            time.sleep(0.2)
        started = family(bench.pid)[1:]
        deadline = time.monotonic() + _END_SECONDS
        while bench.poll() is None and time.monotonic() < deadline:
            bench.send_signal(number)
            time.sleep(0.02)
        try:
            assert bench.wait(1) == code
        finally:
            left = [pid for pid in started if runs(pid)]
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            bench.kill()
            bench.wait()
    assert len(started) > 10  # with facades' workers, nginx's, the registries
    assert not left
    text = (tmp_path / "said").read_text()
    assert f"Ended by {number.name}: every server was stopped." in text
    assert "Traceback" not in text
