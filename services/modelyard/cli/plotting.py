"""Lines drawn with characters: braille, two dots wide and four high, or ASCII where the terminal knows no better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.text import Text

Points = Sequence[tuple[float, float]]

_BRAILLE = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bit of each dot by column and row."""
_LOG_FROM = 30.0
"""From this ratio of the greatest to the smallest value a logarithmic scale shows more than a linear one."""
_LABEL = 9
_STYLES = ("cyan", "magenta")
_DOTTED, _SOLID = ".*"
"""What the two kinds of line are drawn with in ASCII."""


@dataclass(frozen=True)
class Scale:
    """How values become heights between 0 and 1."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def of(cls, values: Sequence[float]) -> Scale:
        """One that fits the values, of which there is at least one."""
        low, high = min(values), max(values)
        logarithmic = low > 0 and high / low >= _LOG_FROM
        if low == high:
            margin = abs(low) / 10 or 1.0
            low, high = low - margin, high + margin
        return cls(low, high, logarithmic)

    def height(self, value: float) -> float:
        """Where the value is."""
        low, high, value = (self._plain(each) for each in (self.low, self.high, value))
        return (value - low) / (high - low)

    def at(self, height: float) -> float:
        """The value that is there."""
        low, high = self._plain(self.low), self._plain(self.high)
        plain = low + height * (high - low)
        return math.exp(plain) if self.logarithmic else plain

    def _plain(self, value: float) -> float:
        return math.log(value) if self.logarithmic else value


class Canvas:
    """Dots in cells. Each cell has the style of the line that was drawn through it last."""

    def __init__(self, columns: int, rows: int, *, ascii_only: bool) -> None:
        self._ascii = ascii_only
        self._across, self._down = (1, 1) if ascii_only else (2, 4)
        self.width, self.height = columns * self._across, rows * self._down
        self._cells = [[0] * columns for _ in range(rows)]
        self._owners = [[0] * columns for _ in range(rows)]

    def line(self, points: Sequence[tuple[int, int]], owner: int, *, dotted: bool) -> None:
        """Joins dots at (column, row counted from the top). A dotted line leaves out every second column."""
        mark = _DOTTED if dotted else _SOLID
        if len(points) == 1:
            self._dot(*points[0], owner, mark)
        for (x0, y0), (x1, y1) in pairwise(points):
            steps = max(abs(x1 - x0), abs(y1 - y0), 1)
            for step in range(steps + 1):
                x = round(x0 + (x1 - x0) * step / steps)
                if not (dotted and x % 2):
                    self._dot(x, round(y0 + (y1 - y0) * step / steps), owner, mark)

    def _dot(self, x: int, y: int, owner: int, mark: str) -> None:
        row, column = y // self._down, x // self._across
        if self._ascii:
            self._cells[row][column] = ord(mark)
        else:
            self._cells[row][column] |= _DOTS[x % 2][y % 4]
        self._owners[row][column] = owner

    def row(self, index: int) -> Text:
        """One row of cells as text."""
        text = Text()
        for cell, owner in zip(self._cells[index], self._owners[index], strict=True):
            text.append(self._character(cell), _STYLES[owner] if cell else "")
        return text

    def _character(self, cell: int) -> str:
        if not cell:
            return " "
        return chr(cell if self._ascii else _BRAILLE + cell)


def plot(lines: Mapping[str, Points], columns: int, rows: int, *, ascii_only: bool = False) -> list[Text]:
    """At most two named lines in `rows` rows, `columns` wide with the labels of the vertical axis.

    The first one is dotted, so that the two can be told apart without colours. Empty if there is nothing to draw.
    """
    values = [y for points in lines.values() for _, y in points]
    if not values or columns < _LABEL + 8 or rows < 2:
        return []
    scale = Scale.of(values)
    canvas = Canvas(columns - _LABEL - 2, rows, ascii_only=ascii_only)
    places = [x for points in lines.values() for x, _ in points]
    first, last = min(places), max(places)
    for owner, points in enumerate(lines.values()):
        dots = [
            (_spread(x, first, last, canvas.width), round((1 - scale.height(y)) * (canvas.height - 1)))
            for x, y in points
        ]
        canvas.line(dots, owner, dotted=owner == 0 and len(lines) > 1)
    return [Text.assemble((_label(scale, row, rows, ascii_only), "dim"), canvas.row(row)) for row in range(rows)]


def _spread(x: float, first: float, last: float, width: int) -> int:
    return 0 if last == first else round((x - first) / (last - first) * (width - 1))


def _label(scale: Scale, row: int, rows: int, ascii_only: bool) -> str:
    tick, axis = ("+", "|") if ascii_only else ("┤", "│")
    if row not in {0, rows // 2, rows - 1}:
        return f"{'':{_LABEL}} {axis}"
    value = scale.at(1 - row / (rows - 1))
    return f"{_figure(value):>{_LABEL}} {tick}"


def _figure(value: float) -> str:
    """As many digits as there is room for, and four at most."""
    return next(text for digits in (4, 3, 2, 1) if len(text := f"{value:.{digits}g}") <= _LABEL)


def caption(curve_lines: Mapping[str, Points], first: str, last: str, columns: int, *, ascii_only: bool) -> Text:
    """What is below a plot: where it begins and ends, which line is which, and the kind of scale."""
    values = [y for points in curve_lines.values() for _, y in points]
    samples = (_DOTTED * 3, _SOLID * 3) if ascii_only else ("⠄⠄⠄", "⠤⠤⠤")
    text = Text(f"{'':{_LABEL}} {'+' if ascii_only else '└'} {first} ", "dim")
    for owner, name in enumerate(curve_lines):
        sample = samples[0 if owner == 0 and len(curve_lines) > 1 else 1]
        text.append(f"  {sample} {name}", _STYLES[owner])
    if values and Scale.of(values).logarithmic:
        text.append("  (logarithmic)", "dim")
    room = columns - text.cell_len - len(last)
    return text.append(f"{'':{max(room, 2)}}{last}", "dim")
