"""From figures to verdicts: paired ratios, their median and spread, and the targets missed. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

OURS = "facade"


@dataclass(slots=True)
class Series:
    """The figures of one load, by participant; the n-th of each were taken in the same round.

    Arguments:
        targets: peer → the highest ratio that is good enough. A name that is no participant's
            bounds our own figure instead.
    """

    name: str
    unit: str
    targets: Mapping[str, float]
    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, participant: str, figure: float) -> None:
        """Take the figure of a round."""
        self.figures.setdefault(participant, []).append(figure)

    def median(self, participant: str) -> float:
        """The participant's median figure."""
        return statistics.median(self.figures[participant])

    @property
    def peers(self) -> list[str]:
        """Everybody but us."""
        return [name for name in self.figures if name != OURS]

    def ratios(self, peer: str) -> list[float]:
        """Our figure over the peer's, round by round; our figures alone for a plain bound."""
        ours = self.figures[OURS]
        if peer not in self.figures:
            return list(ours)
        return [one / other for one, other in zip(ours, self.figures[peer], strict=True)]

    def verdicts(self) -> list["Verdict"]:
        """One for each peer, then one for each plain bound."""
        names = [*self.peers, *(name for name in self.targets if name not in self.figures)]
        return [self._verdict(name) for name in names]

    def _verdict(self, peer: str) -> "Verdict":
        ratios = self.ratios(peer)
        return Verdict(
            self.name,
            peer,
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            self.targets.get(peer),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """How we stand against one peer, or a bound.

    Arguments:
        ratio, low, high: median and extremes of the paired ratios.
        target: None = nothing was promised.
    """

    load: str
    against: str
    ratio: float
    low: float
    high: float
    target: float | None

    @property
    def missed(self) -> bool:
        """Whether the target was missed."""
        return self.target is not None and self.ratio > self.target


def missed(series: Sequence[Series]) -> list[Verdict]:
    """All targets that were missed."""
    return [verdict for each in series for verdict in each.verdicts() if verdict.missed]
