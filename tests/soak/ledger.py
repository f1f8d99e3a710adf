"""What the devices of a soak met, and whether each of it may happen.

Guarantees: everything a device asked for ends in exactly one entry: served whole and right, refused with a reason
that may be given for it, left by the device itself, or a problem in words. Pure: time is given by the caller.
"""

from collections import Counter
from dataclasses import dataclass, field

UPSTREAM_REASONS = frozenset(
    {
        "upstream-rate-limited",
        "upstream-unreachable",
        "upstream-refused",
        "deadline",
        "overloaded",
    }
)
"""What may be said while the weather upstream is bad; a device tries again."""
GRACE_SECONDS = 8.0
"""After a change was said to be in use everywhere, for requests that were under way."""
MAX_PROBLEMS = 50


@dataclass
class Ledger:
    """The book.

    Arguments:
        outcomes: by kind and outcome: ("blob", "served"), ("blob", "device-revoked") …
        problems: what must not happen, in words; the first `MAX_PROBLEMS`.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    bad: int = 0
    bytes: int = 0

    def served(self, kind: str, count: int) -> None:
        """`count` bytes came, whole and with the right digest."""
        self.outcomes[kind, "served"] += 1
        self.bytes += count

    def note(self, kind: str, outcome: str) -> None:
        """Something that may happen."""
        self.outcomes[kind, outcome] += 1

    def problem(self, words: str) -> None:
        """Something that must not."""
        self.bad += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(words)

    def total(self, outcome: str) -> int:
        """Over all kinds."""
        return sum(n for (_, which), n in self.outcomes.items() if which == outcome)


@dataclass
class Standing:
    """Whether something may be had, and since when not: an artifact, or a device.

    Arguments:
        ended: monotonic seconds at which it was withdrawn or revoked, and that was said to be in use;
            None while it is good; 0 while the change is under way: either answer is right.
    """

    ended: float | None = None

    def may_be_served(self, asked: float) -> bool:
        """Whether a request made at `asked` may be answered with content."""
        return not self.ended or asked < self.ended + GRACE_SECONDS

    @property
    def may_be_refused(self) -> bool:
        """Whether a refusal is right."""
        return self.ended is not None


def judge_refusal(standings: dict[str, Standing], reason: str) -> bool:
    """Whether `reason` may be given.

    Arguments:
        standings: by the reason that ends them: "not-signed" → the artifact, "device-revoked" → the device.
    """
    if reason in UPSTREAM_REASONS:
        return True
    standing = standings.get(reason)
    return standing is not None and standing.may_be_refused
