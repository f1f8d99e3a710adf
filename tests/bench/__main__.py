"""`make bench`: the facade against nginx and docker-registry, in one run, alternating.

Exits with the number of targets missed, having listed them. `--quick` gives a first impression in
under three minutes; results are only written by whole runs, or where `--out` says. SIGINT and SIGTERM
end it at once, and every server that it started; then it exits with 128 and the signal's number.
"""

import argparse
import asyncio
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.bench.ends import End
from tests.bench.growth import growth_loads
from tests.bench.loads import Load, blob_loads, crowd_loads, small_loads, whole_loads
from tests.bench.report import summary, table, write
from tests.bench.rounds import OURS, Series, missed
from tests.bench.signals import Ended, until_signal
from tests.bench.stand import PLAIN, Stand, stand

ROUNDS, QUICK_ROUNDS = 5, 3
_OPEN_FILES = 8192
_PACKAGES = {
    "nginx": "nginx-light",
    "docker-registry": "docker-registry",
    "ab": "apache2-utils",
    "curl": "curl",
    "skopeo": "skopeo",
    "ctr": "containerd",
}
_RESULTS = Path(__file__).parents[2] / "deploy" / "bench"


def main() -> int:
    """Parse, measure, write, say."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller loads")
    parser.add_argument("--rounds", type=int, help=f"how often ({ROUNDS})")
    parser.add_argument(
        "--costly-rounds", type=int, default=3, help="how often what takes long (3)"
    )
    parser.add_argument("--only", default="", help="only loads with this in their name")
    parser.add_argument(
        "--upstream-beside",
        choices=("clients", "servers"),
        default="clients",
        help="whose processor the upstream shares",
    )
    parser.add_argument("--out", type=Path, help="folder for results.{md,json,svg}")
    given = parser.parse_args()
    # As installed: compiled once. Where this is set, every start would compile everything again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if not _have_packages():
        return 1
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES, limit), limit))
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    loads = [
        load
        for load in (
            *crowd_loads(quick=given.quick),
            *small_loads(quick=given.quick),
            *blob_loads(quick=given.quick),
            *([] if given.quick else (*whole_loads(), *growth_loads())),
        )
        if given.only in load.name and not (load.root and os.geteuid())
    ]
    if not loads:
        parser.error(f"No load has {given.only!r} in its name.")
    loads = [
        replace(load, rounds=min(load.rounds, given.costly_rounds)) if load.costly else load
        for load in loads
    ]
    try:
        end = End()
        work = _measure(loads, rounds, given.upstream_beside, end)
        series = asyncio.run(until_signal(work, end.begin))
    except Ended as ended:
        print(f"Ended by {ended.signal.name}: every server was stopped.", file=sys.stderr)
        return 128 + ended.signal
    print(table(series), summary(series), sep="\n\n")
    out = given.out or (None if given.quick or given.only else _RESULTS)
    if out is not None:
        write(out, series, command=" ".join(["make bench", *sys.argv[1:]]))
    return len(missed(series))


async def _measure(loads: Sequence[Load], rounds: int, beside: str, end: End) -> list[Series]:
    with tempfile.TemporaryDirectory(prefix="facade-bench-") as folder:
        with_plain = any(PLAIN in load.peers for load in loads)
        async with stand(
            Path(folder), upstream_beside=beside, with_plain=with_plain, end=end
        ) as made:
            # In a thread, so that what the facade logs is read away meanwhile.
            return await asyncio.to_thread(_run, made, loads, rounds)


def _run(made: Stand, loads: Sequence[Load], rounds: int) -> list[Series]:
    series = [Series(load.name, load.unit, load.targets) for load in loads]
    for number in range(rounds):
        for load, each in zip(loads, series, strict=True):
            if number < load.rounds and load.grow is None:
                _measure_once(made, load, each, number)
    for load, each in zip(loads, series, strict=True):
        if load.grow is not None:
            load.grow(made)
            for number in range(load.rounds):
                _measure_once(made, load, each, number)
    return series


def _measure_once(made: Stand, load: Load, series: Series, number: int) -> None:
    names = [OURS, *load.peers]
    began = time.monotonic()
    order = names if number % 2 == 0 else names[::-1]
    figures = load.measure(made, [made.participants[name] for name in order])
    for name, figure in zip(order, figures, strict=True):
        series.add(name, figure)
    said = ", ".join(f"{name} {series.figures[name][-1]:.3g}" for name in names)
    seconds = time.monotonic() - began
    print(f"round {number + 1} {load.name}: {said} {load.unit} [{seconds:.0f} s]", flush=True)


def _have_packages() -> bool:
    """Whether all programs are there; installs what is missing when we are root."""
    missing = [package for program, package in _PACKAGES.items() if not shutil.which(program)]
    if missing and os.geteuid() == 0:
        for command in (["update", "-qq"], ["install", "-y", "-qq", *missing]):
            with contextlib.suppress(FileNotFoundError):
                subprocess.run(["apt-get", *command], check=False)
        missing = [package for program, package in _PACKAGES.items() if not shutil.which(program)]
    if missing:
        print(f"The bench needs: sudo apt-get install {' '.join(missing)}", file=sys.stderr)
    return not missing


if __name__ == "__main__":
    sys.exit(main())
