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
        processes: that serve, for the bound on growth.
        rest_before, rest_after: descriptors without any load.
        metrics: at the end, at rest, summed over labels.
        internal: refusals for a fault of the facade's own.
        healed: artifacts that stood at the end and came whole, and how many stood.
        errors: `level: error` lines of its log, by event.
    """

    ledger: Ledger
    samples: Sequence[Sample]
    processes: int
    rest_before: Open
    rest_after: Open
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
    growth, bound = growth_kib(seen.samples), MAX_GROWTH_KIB * seen.processes
    busy = {name: metrics.get(name, 0.0) for name in _AT_REST if metrics.get(name, 0.0)}
    integrity = metrics.get("facade_integrity_failures_total", 0.0)
    dropped = metrics.get("facade_reports_dropped_total", 0.0)
    served = ledger.total("served")
    healed, standing = seen.healed
    rest = seen.rest_after
    further = rest.other - seen.rest_before.other
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
            growth <= bound,
            f"{growth / 1024:+.1f} MiB over the second half (at most {bound / 1024:.0f})",
        ),
        Check(
            "descriptors",
            further <= MAX_FURTHER_DESCRIPTORS * seen.processes
            and rest.cached <= MAX_CACHED * seen.processes
            and not rest.gone,
            f"{seen.rest_before.other} at rest before, {rest.other} after; {rest.cached} cached objects"
            f" kept open, {rest.gone} of files that are gone",
        ),
        Check("nothing left behind", not busy, ", ".join(busy) or "no stream, transfer or waiter"),
        Check("no fault of its own", not seen.internal, f"{seen.internal:.0f} internal"),
        Check("records", not dropped, f"{dropped:.0f} pull records dropped"),
        Check("log", not seen.errors, f"error lines: {dict(seen.errors) or 'none'}"),
        Check("healed", healed == standing, f"{healed} of {standing} artifacts whole at the end"),
    ]
