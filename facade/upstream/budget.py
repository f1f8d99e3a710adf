"""How many requests a registry still allows, as its answers say.

Guarantees: understands `RateLimit-Limit` and `RateLimit-Remaining` as Docker Hub sends them
(`100;w=21600`), the IETF drafts' `RateLimit` and `RateLimit-Policy` in their older
(`limit=100, remaining=50, reset=50`) and newer form (`"default";r=50;t=30`), and
`RateLimit-Reset` in seconds or as a Unix time (GitLab); whatever else a header says is ignored,
and never an error. Pure: times come in as arguments. `Retry-After` is `retry`'s.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from multidict import MultiMapping

_MAX_CHARS = 1024
"""A longer header is not looked at."""
_EPOCH = 1_000_000_000
"""A larger reset is a moment (Unix seconds), a smaller one a duration."""
_MAX_SECONDS = 24 * 3600.0
_DEFAULT_WINDOW_SECONDS = 60.0
"""Where nothing says in what time the budget comes back."""
_RESERVE_SHARE = 20
"""One in so many requests is kept: for whoever uses the same credentials, and for our own pace."""

_MAX_DIGITS = 15

_Member = tuple[str, dict[str, int]]
"""One of a list: what it is called, and its parameters that are whole numbers."""


@dataclass(frozen=True, slots=True)
class Announced:
    """What one answer says.

    Arguments:
        remaining: requests.
        limit: requests per window, None = not said.
        window: seconds, None = not said.
        reset: seconds until the whole limit is there again, None = not said.
    """

    remaining: int
    limit: int | None = None
    window: float | None = None
    reset: float | None = None


def announced(headers: MultiMapping[str], now: float) -> Announced | None:
    """The budget that an answer announces, None when it announces none.

    Arguments:
        headers: of the answer; names are compared without case.
        now: Unix seconds, for a reset that is a moment.
    """
    if "RateLimit" in headers:
        return _from_ratelimit(_text(headers, "RateLimit"), _text(headers, "RateLimit-Policy"))
    if "RateLimit-Remaining" not in headers:
        return None
    remaining = _integer(_text(headers, "RateLimit-Remaining"))
    if remaining is None:
        return None
    limits = _text(headers, "RateLimit-Limit")
    limit = _integer(limits)
    windows = _windows(limits) | _windows(_text(headers, "RateLimit-Policy"))
    reset = _integer(_text(headers, "RateLimit-Reset"))
    if reset is not None and reset >= _EPOCH:
        reset = max(0, reset - int(now))
    return Announced(
        remaining,
        limit,
        _seconds(windows.get(limit) if limit is not None else None),
        _seconds(reset),
    )


def _from_ratelimit(value: str, policy: str) -> Announced | None:
    members = _members(value)
    named = _numbers(name for name, _ in members)
    if "remaining" in named:
        limit = named.get("limit")
        window = _windows(policy).get(limit) if limit is not None else None
        return Announced(named["remaining"], limit, _seconds(window), _seconds(named.get("reset")))
    policies = dict(_members(policy))
    found = [
        Announced(
            item["r"],
            policies.get(name, {}).get("q"),
            _seconds(policies.get(name, {}).get("w")),
            _seconds(item.get("t")),
        )
        for name, item in members
        if "r" in item
    ]
    # Several policies may apply at once: the tightest decides.
    return min(found, key=lambda one: one.remaining, default=None)


def _members(value: str) -> list[_Member]:
    """A list as it is split at its commas and semicolons. No expression that can backtrack: a registry
    chooses these words. (A name with a comma in it is cut in two, and then means nothing.)
    """
    members = []
    for member in value.split(","):
        name, *parameters = member.split(";")
        members.append((name.strip().strip('"'), _numbers(parameters)))
    return members


def _numbers(parts: Iterable[str]) -> dict[str, int]:
    """`key=12` of `parts`; what is no whole number is left out."""
    pairs = (part.partition("=") for part in parts)
    found = ((key.strip(), _integer(number)) for key, _, number in pairs)
    return {key: number for key, number in found if number is not None}


def _windows(value: str) -> dict[int, int]:
    """Seconds by limit: `100;w=60`."""
    found = ((_integer(name), item.get("w")) for name, item in _members(value))
    return {limit: w for limit, w in found if limit is not None and w is not None}


def _text(headers: MultiMapping[str], name: str) -> str:
    value = ", ".join(headers.getall(name, ()))
    return value if len(value) <= _MAX_CHARS else ""


def _integer(value: str) -> int | None:
    """The whole number that `value` is; of a list, or with parameters, the first."""
    text = value.partition(",")[0].partition(";")[0].strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def _seconds(value: float | None) -> float | None:
    return None if value is None else min(float(value), _MAX_SECONDS)


class Budget:
    """What is left of one kind of requests to one registry. Times are monotonic seconds.

    While more than a twentieth of the limit is left, nobody waits. After that, requests wait for
    the announced reset; where none is announced (Docker Hub's window slides) they go out one at a
    time, at the rate that the limit sustains, and each answer brings the figure up to date.
    """

    __slots__ = ("_fresh_at", "_last", "_pace", "_reserve", "_resets", "remaining")

    def __init__(self) -> None:
        self.remaining: int | None = None
        """As last announced; None = nothing known, or no longer true."""
        self._reserve = 0
        self._resets = False
        self._fresh_at = 0.0
        self._pace = 0.0
        self._last = -_MAX_SECONDS

    def announce(self, said: Announced, now: float) -> None:
        """Take note of what an answer says."""
        self.remaining = said.remaining
        self._reserve = (said.limit or 0) // _RESERVE_SHARE
        window = said.window or _DEFAULT_WINDOW_SECONDS
        self._resets = said.reset is not None
        self._fresh_at = now + (said.reset if said.reset is not None else window)
        self._pace = window / max(1, said.limit or 1)

    def wait(self, now: float, under_way: int) -> float:
        """Seconds until one more request may go out; 0 = now.

        Arguments:
            under_way: requests whose answers have not come: the figure may not know them yet.
        """
        if self.remaining is not None and now >= self._fresh_at:
            self.remaining = None
        if not self.nearly_used(under_way):
            return 0.0
        if self._resets:
            return self._fresh_at - now
        return max(0.0, self._last + self._pace - now)

    def nearly_used(self, under_way: int = 0) -> bool:
        """Whether what is left is the reserve, or less."""
        return self.remaining is not None and self.remaining - under_way <= self._reserve

    def spend(self, now: float) -> None:
        """A request goes out."""
        self._last = now
