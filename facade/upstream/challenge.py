"""The `WWW-Authenticate` grammar (RFC 9110, 11.6.1).

Guarantees: `parse_challenges` reads any number of challenges, quoted commas and escapes, parameters
and schemes in any case, in time linear in its (bounded) input, and raises nothing: what it cannot
read it leaves out. Does not judge what a challenge asks for: that is `token.check_realm`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MAX_HEADER_CHARS = 8192
"""Longest WWW-Authenticate value that is read; the rest is left out."""
MAX_CHALLENGES = 16
"""Most challenges that are read from one answer."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110, 5.6.2 "token", no password
_SEPARATORS = re.compile(r"[ \t,]*", re.ASCII)
_NAME = re.compile(_TOKEN, re.ASCII)
# A quoted string that never ends reaches to the end: reading stays linear. An unquoted value may
# hold more than a token's characters, since some registries forget to quote their realm's URL.
_VALUE = re.compile(
    r'[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)(?:"|\\?$)|([^\s,"]+))', re.ASCII | re.DOTALL
)
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))", re.ASCII)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge: `scheme` in lower case ("bearer", "basic"), parameter names in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(header_values: Iterable[str]) -> tuple[Challenge, ...]:
    """Read the values of all `WWW-Authenticate` fields of one answer; never raises.

    A parameter given twice keeps its first value. A `token68` (RFC 9110, 11.2; Negotiate uses it)
    is skipped.
    """
    challenges: list[Challenge] = []
    for value in header_values:
        challenges.extend(_parse_one(value[:MAX_HEADER_CHARS]))
    return tuple(challenges[:MAX_CHALLENGES])


def _parse_one(text: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while position < len(text):
        position = _end(_SEPARATORS.match(text, position), position)
        name = _NAME.match(text, position)
        if name is None:
            position += 1
            continue
        value = _VALUE.match(text, name.end())
        if value is not None:
            position = value.end()
            if found:
                found[-1][1].setdefault(name.group().lower(), _unquote(value))
            continue
        position = _end(_TOKEN68.match(text, name.end()), name.end())
        found.append((name.group().lower(), {}))
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _unquote(value: re.Match[str]) -> str:
    quoted, plain = value.groups()
    return plain if quoted is None else _ESCAPE.sub(r"\1", quoted)


def _end(match: re.Match[str] | None, otherwise: int) -> int:
    return otherwise if match is None else match.end()
