"""The order of tags: newest-likely first, as a best effort.

Guarantees: a total order, the same for the same tags whatever order they came in: floating names
(`latest` and friends), then versions newest first with each release's pre-releases under it, then
dates newest first, then everything else by name, then what tools hide (cosign's `sha256-…`).
Pure; reads a bounded part of each tag. Does not know when anything was pushed.
"""

import re
from collections.abc import Iterable

FLOATING = (
    *("latest", "stable", "lts", "current", "release", "edge"),
    *("main", "master", "nightly", "dev", "develop"),
)
"""Names that people move along, the ones for users first."""

_HIDDEN = re.compile(r"sha(?:256|384|512)-[0-9a-f]{32,128}(?:\.[A-Za-z0-9._-]+)?", re.ASCII)
_VERSION = re.compile(
    r"(?:v|version[-_.]?|release[-_.]?)?(\d{1,18}(?:\.\d{1,18}){0,5})(?:[-_.+]?(.*))?",
    re.ASCII | re.IGNORECASE,
)
_DATE = re.compile(
    r"(?<!\d)((?:19|20)\d\d)([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])"
    r"(?:[-_.tT]?([0-2]\d)[-_.:]?([0-5]\d)(?:[-_.:]?([0-5]\d))?)?(?!\d)",
    re.ASCII,
)
_PRE_RELEASE = re.compile(
    r"(?:^|[-_.+])(dev|snapshot|nightly|alpha|a|beta|b|preview|pre|milestone|m|rc|c|cr)"
    r"(?:[-_.]?(\d{1,18}))?(?=$|[-_.+]|\d)",
    re.ASCII | re.IGNORECASE,
)
_STAGES = {
    **dict.fromkeys(("dev", "snapshot", "nightly"), 0),
    **dict.fromkeys(("alpha", "a"), 1),
    **dict.fromkeys(("beta", "b"), 2),
    **dict.fromkeys(("preview", "pre", "milestone", "m"), 3),
    **dict.fromkeys(("rc", "c", "cr"), 4),
}
_RELEASE = 5
_DIGITS = re.compile(r"(\d{1,18})", re.ASCII)
_FLOATING, _VERSIONS, _DATES, _OTHERS, _HIDDEN_LAST = range(5)
_COMPONENTS = 6

_Key = tuple[int, tuple[int, ...], tuple[tuple[int, int, str], ...], str]


def is_hidden(tag: str) -> bool:
    """Whether a tag is a tool's own: cosign's and the referrers fallback's `sha256-<hex>…`."""
    return _HIDDEN.fullmatch(tag) is not None


def order_tags(tags: Iterable[str]) -> list[str]:
    """The distinct tags in order."""
    return sorted(set(tags), key=sort_key)


def sort_key(tag: str) -> _Key:
    """What orders a tag; two tags never have the same."""
    if is_hidden(tag):
        return (_HIDDEN_LAST, (), (), tag)
    if tag.lower() in FLOATING:
        return (_FLOATING, (FLOATING.index(tag.lower()),), (), tag)
    date, version = _DATE.search(tag), _VERSION.fullmatch(tag)
    if date and (not version or date.start() <= version.start(1)):  # not 1.2.3-20240115
        rest = tag[: date.start()] + tag[date.end() :]
        return (_DATES, _newest_first(date.group(1, 3, 4, 5, 6, 7)), _natural(rest), tag)
    if version:
        return _version_key(tag, version[1], version[2] or "")
    return (_OTHERS, (), _natural(tag), tag)


def _version_key(tag: str, numbers: str, suffix: str) -> _Key:
    parts = numbers.split(".")
    padded = [*map(int, parts), *([0] * (_COMPONENTS - len(parts)))]
    stage, count, pre = _RELEASE, 0, _PRE_RELEASE.search(suffix)
    if pre:
        stage, count = _STAGES[pre[1].lower()], int(pre[2] or 0)
        suffix = suffix[: pre.start()] + suffix[pre.end() :]
    # 1.2.0 before 1.2 before 1, which mostly point at the same; a plain tag before its variants.
    order = (*(-number for number in padded), -stage, -count, -len(parts))
    return (_VERSIONS, order, _natural(suffix), tag)


def _newest_first(parts: tuple[str | None, ...]) -> tuple[int, ...]:
    return tuple(-int(part or 0) for part in parts)


def _natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """`build-10` before `build-9`: what counts up is newer. Between numbers, text order."""
    return tuple(
        (1, -int(part), "") if part.isdigit() else (0, 0, part.lower())
        for part in _DIGITS.split(text)
        if part
    )
