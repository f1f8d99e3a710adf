"""`make soak`: minutes of mixed load with faults against a real `facade up`, then a verdict.

Devices pull whole images, ranges, leave, are slow, ask for what they may not have; meanwhile the registry cuts,
stalls, limits, disappears, its token service fails, images are imported and withdrawn, devices enrolled and
revoked. Exits with the number of checks that do not hold.
"""

import argparse
import asyncio
import contextlib
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.soak.devices import Device
from tests.soak.verdict import Check, Seen, checks
from tests.soak.watch import Open, Sample, descriptors, fewest, watch
from tests.soak.weather import Operator, Weather
from tests.soak.world import World, world

DEVICES = 8
REST_SECONDS = 33.0
"""Until idle connections to the registry (30 s) are gone."""
_OPEN_FILES = 8192


def main(arguments: Sequence[str]) -> int:
    """Parse, soak, say."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of load (10)")
    parser.add_argument("--workers", type=int, help="serving processes (as many as by default)")
    parser.add_argument("--seed", type=int, default=1, help="of what happens when (1)")
    parser.add_argument("--keep-log", type=Path, help="where to write the facade's log")
    given = parser.parse_args(arguments)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES, limit), limit))
    with tempfile.TemporaryDirectory(prefix="facade-soak-") as folder:
        verdict = asyncio.run(
            soak(Path(folder), given.minutes * 60, given.workers, given.seed, given.keep_log)
        )
    return sum(not check.holds for check in verdict)


async def soak(
    folder: Path, seconds: float, workers: int | None, seed: int, keep_log: Path | None = None
) -> list[Check]:
    """Run it in `folder`; prints as it goes."""
    async with world(folder, workers=workers) as it:
        try:
            return _say(it, await _measure(it, seconds, seed))
        finally:
            if keep_log is not None:
                await asyncio.to_thread(keep_log.write_text, it.facade.log)


async def _measure(it: World, seconds: float, seed: int) -> Seen:
    pid = it.facade.pid
    people = [await it.enrol(f"kiosk-{number}") for number in range(DEVICES)]
    warm = Device(it, people[0], seed=seed, keep_alive=False)
    async with warm.session:
        await warm.image()
    before = await _rest(it)
    samples: list[Sample] = []
    watching = asyncio.create_task(watch(pid, samples))
    begun = time.monotonic()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
            for number, person in enumerate(people):
                device = Device(
                    it,
                    person,
                    seed=seed * 1000 + number,
                    keep_alive=number % 2 == 0,
                    pace=0.02 if number == DEVICES - 1 else 0.0,
                )
                tasks.create_task(device.work())
            tasks.create_task(Weather(it, seed).blow())
            tasks.create_task(Operator(it, seed).work(tasks))
            tasks.create_task(_tell(it, samples, begun, seconds))
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    healed = 0
    last = Device(it, people[1], seed=seed, keep_alive=False)
    async with last.session:
        for artifact in it.signed:
            blobs = [await last.whole("blobs", artifact, digest) for digest in artifact.image.blobs]
            healed += await last.whole("manifests", artifact, artifact.image.index) and all(blobs)
    after = await _rest(it)
    return Seen(
        ledger=it.ledger,
        samples=samples,
        rest_before=before,
        rest_after=after,
        metrics=await it.metrics(),
        internal=await it.refusals("internal", "control-unavailable"),
        healed=(healed, len(it.signed)),
        errors=Counter(
            str(event["event"]) for event in it.facade.events if event.get("level") == "error"
        ),
    )


async def _rest(it: World) -> dict[int, Open]:
    """The descriptors without load: the fewest within the time that idle connections have."""
    seen, until = [descriptors(it.facade.pid)], time.monotonic() + REST_SECONDS
    while time.monotonic() < until:
        await asyncio.sleep(1)
        seen.append(descriptors(it.facade.pid))
    return fewest(seen)


async def _tell(it: World, samples: list[Sample], begun: float, seconds: float) -> None:
    """A line every half minute."""
    while True:
        await asyncio.sleep(30)
        at = time.monotonic() - begun
        sample = samples[-1]
        print(
            f"{at:5.0f} of {seconds:.0f} s  {_each(sample)} MiB  "
            f"{sample.descriptors:4} descriptors  {it.ledger.total('served'):6} served  "
            f"{it.ledger.bad} problems",
            flush=True,
        )


def _each(sample: Sample) -> str:
    """The memory of each process, the parent first."""
    return " + ".join(f"{kib / 1024:5.1f}" for _, kib in sorted(sample.pss_kib.items()))


def _say(it: World, seen: Seen) -> list[Check]:
    print("\nWhat happened")
    for (kind, outcome), count in sorted(seen.ledger.outcomes.items()):
        print(f"  {kind:10} {outcome:40} {count:7}")
    if seen.samples:
        first, last = seen.samples[0], seen.samples[-1]
        highest = max(sample.all_pss_kib for sample in seen.samples)
        print(
            f"\n  memory {first.all_pss_kib / 1024:.1f} → {last.all_pss_kib / 1024:.1f} MiB, "
            f"{highest / 1024:.1f} at most; CPU {last.cpu - first.cpu:.0f} s; "
            f"{len(last.pss_kib)} process(es)"
        )
    verdict = checks(seen)
    print("\nVerdict")
    for check in verdict:
        print(f"  {'ok    ' if check.holds else 'FAILED'} {check.name}: {check.words}")
    return verdict


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
