"""The results as a picture: per load one bar for each participant, as long as what it costs.

Guarantees: plain SVG 1.1 without scripts or fonts of its own. Loads are scaled each by itself:
their units differ, and the question is who costs less.
"""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from tests.bench.rounds import OURS, Series

_WIDTH, _LABELS, _BARS = 760, 150, 480
_BAR, _GAP, _HEAD = 14, 4, 22
_OURS, _THEIRS = "#1f6feb", "#9aa4b2"


def draw(series: Sequence[Series]) -> str:
    """The SVG document."""
    body: list[str] = []
    y = 10
    for each in series:
        if each.peers:
            y = _group(body, each, y)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" '
        f'height="{y}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="{_WIDTH}" height="{y}" fill="#ffffff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _group(body: list[str], series: Series, y: int) -> int:
    body.append(_text(10, y + 12, f"{series.name} ({series.unit})", weight="bold"))
    y += _HEAD
    names = [OURS, *series.peers]
    longest = max(series.median(name) for name in names)
    for name in names:
        value = series.median(name)
        width = max(1, round(_BARS * value / longest)) if longest > 0 else 1
        colour = _OURS if name == OURS else _THEIRS
        body.append(_text(_LABELS - 8, y + 11, name, anchor="end"))
        body.append(
            f'<rect x="{_LABELS}" y="{y}" width="{width}" height="{_BAR}" fill="{colour}"/>'
        )
        body.append(
            _text(_LABELS + width + 6, y + 11, f"{value:,.3g}" if value < 100 else f"{value:,.0f}")
        )
        y += _BAR + _GAP
    return y + 8


def _text(x: int, y: int, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}" fill="#111111">'
        f"{escape(text)}</text>"
    )
