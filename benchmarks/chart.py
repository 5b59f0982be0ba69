"""A bar chart per scenario as SVG, without a plotting library: bars need none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LABEL, _VALUE = 860, 150, 110
_BAR, _GAP, _TITLE, _SPACE = 20, 6, 34, 18
_OURS, _PEERS, _LIMITS = "#2f6fb5", "#c26a2d", "#9aa0a6"
_COLOURS = {"pod": _OURS, "door": _OURS, "triton": _PEERS, "mlserver": _PEERS, "kserve": _PEERS}


@dataclass(frozen=True)
class Row:
    """A bar with its spread."""

    entry: str
    value: float
    low: float
    high: float
    """Worst and best round."""
    text: str


@dataclass(frozen=True)
class Panel:
    """The bars of a scenario."""

    title: str
    rows: Sequence[Row]


def draw(panels: Sequence[Panel]) -> str:
    """The SVG: panels below one another, each with a scale of its own that begins at 0."""
    parts, top = [], 10.0
    for panel in panels:
        parts.append(_text(10, top + 18, panel.title, weight="bold"))
        top += _TITLE
        scale = (_WIDTH - _LABEL - _VALUE) / max((row.high for row in panel.rows), default=1.0)
        for row in panel.rows:
            parts += _bar(row, top, scale)
            top += _BAR + _GAP
        top += _SPACE
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top:.0f}" viewBox="0 0 {_WIDTH} {top:.0f}"'
        ' font-family="sans-serif" font-size="13">'
    )
    background = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([head, background, *parts, "</svg>"]) + "\n"


def _bar(row: Row, top: float, scale: float) -> list[str]:
    """A bar, a thin line from the worst to the best round, label and value."""
    middle, end = top + _BAR / 2, _LABEL + row.value * scale
    low, high = _LABEL + row.low * scale, _LABEL + row.high * scale
    colour = _COLOURS.get(row.entry.partition(",")[0], _LIMITS)
    return [
        _text(_LABEL - 8, middle + 4, row.entry, anchor="end"),
        f'<rect x="{_LABEL}" y="{top:.1f}" width="{end - _LABEL:.1f}" height="{_BAR}" fill="{colour}"/>',
        f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}" stroke="black"/>',
        _text(max(end, high) + 6, middle + 4, row.text),
    ]


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
