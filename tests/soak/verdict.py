"""The checks at the end of a soak, from what was seen. Pure.

Guarantees: every check says what it looked at, in figures; a soak holds when all of them do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.soak.ledger import Ledger
from tests.soak.watch import (
    MAX_CACHED,
    MAX_FURTHER_DESCRIPTORS,
    MAX_GROWTH_KIB,
    Open,
    Sample,
    growth_kib,
)

MIN_SERVED = 50
"""Below that a soak shows nothing."""
_AT_REST = ("facade_streams_in_flight", "facade_transfers_in_flight", "facade_requests_waiting")


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured.

    Arguments:
        rest_before, rest_after: descriptors without any load, of each process.
        metrics: at the end, at rest, summed over labels.
        internal: refusals for a fault of the facade's own.
        healed: artifacts that stood at the end and came whole, and how many stood.
        errors: `level: error` lines of its log, by event.
    """

    ledger: Ledger
    samples: Sequence[Sample]
    rest_before: Mapping[int, Open]
    rest_after: Mapping[int, Open]
    metrics: Mapping[str, float]
    internal: float
    healed: tuple[int, int]
    errors: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Check:
    """One check and its figures."""

    name: str
    holds: bool
    words: str


def checks(seen: Seen) -> list[Check]:
    """All of them."""
    ledger, metrics = seen.ledger, seen.metrics
    growth = growth_kib(seen.samples)
    busy = {name: metrics.get(name, 0.0) for name in _AT_REST if metrics.get(name, 0.0)}
    integrity = metrics.get("facade_integrity_failures_total", 0.0)
    dropped = metrics.get("facade_reports_dropped_total", 0.0)
    served = ledger.total("served")
    healed, standing = seen.healed
    before, after = seen.rest_before, seen.rest_after
    return [
        Check(
            "load", served >= MIN_SERVED, f"{served} answers with content, {ledger.bytes:,} bytes"
        ),
        Check(
            "every pull done or refused with its reason",
            not ledger.bad,
            "\n".join([f"{ledger.bad} problems", *ledger.problems])
            if ledger.bad
            else "no other end",
        ),
        Check("integrity", not integrity, f"{integrity:.0f} failures counted"),
        Check(
            "memory",
            bool(growth) and all(each <= MAX_GROWTH_KIB for each in growth.values()),
            " and ".join(f"{each / 1024:+.1f}" for _, each in sorted(growth.items()))
            + f" MiB over the second half (at most {MAX_GROWTH_KIB / 1024:.0f} each)",
        ),
        Check(
            "descriptors",
            all(_few(before.get(process, Open()), rest) for process, rest in after.items()),
            "; ".join(
                f"{before.get(process, Open()).other} at rest before, {rest.other} after, {rest.cached}"
                f" cached objects kept open, {rest.gone} of files that are gone"
                for process, rest in sorted(after.items())
            ),
        ),
        Check(
            "processes",
            before.keys() == after.keys(),
            f"{len(after)}, of which {len(after.keys() - before.keys())} were not there before",
        ),
        Check("nothing left behind", not busy, ", ".join(busy) or "no stream, transfer or waiter"),
        Check("no fault of its own", not seen.internal, f"{seen.internal:.0f} internal"),
        Check("records", not dropped, f"{dropped:.0f} pull records dropped"),
        Check("log", not seen.errors, f"error lines: {dict(seen.errors) or 'none'}"),
        Check("healed", healed == standing, f"{healed} of {standing} artifacts whole at the end"),
    ]


def _few(before: Open, after: Open) -> bool:
    return (
        after.other - before.other <= MAX_FURTHER_DESCRIPTORS
        and after.cached <= MAX_CACHED
        and not after.gone
    )
