"""The CPU clock of another process and of what it started."""

import os
import subprocess
import sys
import time

from tests.bench.cpu import cpu_seconds, family, pss_kib

_BURN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass\n"


def test_a_child_counts_with_its_parent() -> None:
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_BURN.format(9)!r}])"
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        deadline = time.monotonic() + 20
        while len(family(process.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        before = cpu_seconds(process.pid)
        while cpu_seconds(process.pid) - before < 0.1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert cpu_seconds(process.pid) - before >= 0.1
    finally:
        for pid in family(process.pid):
            os.kill(pid, 9)
        process.wait()


def test_our_own_clock_is_the_process_clock() -> None:
    before = time.process_time()
    assert before <= cpu_seconds(os.getpid())


def test_memory_of_this_process_is_known() -> None:
    assert pss_kib(os.getpid()) > 1024
