"""`python -m tests.fuzz`: atheris (libFuzzer) on every harness, each in a process of its own.

Guarantees: exit 1 when any harness found something; the input is then in `tests/fuzz/findings/<harness>/`, where
the smoke test runs it from then on (commit it with the repair). What was learned is kept in `.fuzz/<harness>`
for the next run. An input that takes more than `SECONDS_PER_INPUT`, and more than `RSS_MIB`, are findings too.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.all import ROOMS
from tests.fuzz.harness import FINDINGS

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / ".fuzz"
SECONDS_PER_INPUT = 10
MEMORY = Path("/dev/shm")
RSS_MIB = 768
"""Of the whole process, imports and libFuzzer's own tables included."""


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("harness", nargs="*", help="names; all of them when none is given")
    parser.add_argument("--seconds", type=int, default=30, help="for each (default 30)")
    given = parser.parse_args(arguments)
    if unknown := set(given.harness) - set(ROOMS):
        print(f"No harness {', '.join(sorted(unknown))}; there are: {' '.join(ROOMS)}")
        return 2
    failed = [
        name
        for name in given.harness or ROOMS
        if not run(name, CORPUS / name, [f"-max_total_time={given.seconds}"])
    ]
    if failed:
        print(f"Findings: {', '.join(failed)}. The inputs are in {FINDINGS.relative_to(ROOT)}/.")
    return 1 if failed else 0


def run(name: str, corpus: Path, options: Sequence[str], findings: Path = FINDINGS) -> bool:
    """Fuzz one harness; whether it held. Prints a line, and the log of what broke.

    Arguments:
        corpus: where interesting inputs are kept.
        options: libFuzzer's.
    """
    corpus.mkdir(parents=True, exist_ok=True)
    (findings / name).mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "tests.fuzz.child", name, *options),
        *(f"-timeout={SECONDS_PER_INPUT}", f"-rss_limit_mb={RSS_MIB}"),
        *(f"-artifact_prefix={findings / name}/", "-print_final_stats=1", str(corpus)),
    ]
    begun = time.monotonic()
    # libFuzzer exits without tidying up; in memory, for a harness that has its input on the disk.
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        ran = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, "TMPDIR": scratch},
        )
    if not any((findings / name).iterdir()):
        (findings / name).rmdir()
    log = ran.stdout + ran.stderr
    verdict = "FAILED" if ran.returncode else "ok"
    print(f"{verdict:7}{name:16}{summary(log)} in {time.monotonic() - begun:5.1f} s", flush=True)
    if ran.returncode:
        # The first of the one is Python's traceback, the last of the other libFuzzer's own words.
        print(ran.stdout[:4000], ran.stderr[-3000:], sep="\n")
    return ran.returncode == 0


def summary(log: str) -> str:
    """What libFuzzer says about its run: inputs, their rate, branches seen, the slowest, the memory."""
    stats = dict(re.findall(r"^stat::(\w+): +(\d+)", log, re.MULTILINE))
    seen = re.findall(r"\bcov: (\d+)", log)
    return (
        f"{stats.get('number_of_executed_units', '?'):>9} inputs"
        f" ({stats.get('average_exec_per_sec', '?'):>5}/s), {seen[-1] if seen else '?':>5} branches,"
        f" slowest {stats.get('slowest_unit_time_sec', '?')} s,"
        f" {stats.get('peak_rss_mb', '?'):>3} MiB"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
