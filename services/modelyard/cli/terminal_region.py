"""The last lines of a terminal, drawn over and over, while other lines are printed above them.

Like rich's `Live`, and unlike it right after the window was made narrower: the terminal has then broken the old lines
into more rows than were written, and all of these have to go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from rich.console import Console, RenderableType
from rich.text import Text


class TerminalRegion:
    """Owns the lines where the cursor is, for the length of a `with`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._widths: list[int] = []
        """Of the lines that are on the screen."""

    def __enter__(self) -> Self:
        self._console.show_cursor(False)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._console.show_cursor(True)

    @property
    def columns(self) -> int:
        """What a line may be wide: the last column stays free, since writing there makes some terminals begin a row."""
        return max(1, self._console.width - 1)

    def draw(self, lines: Sequence[Text], above: Sequence[RenderableType] = ()) -> None:
        """Prints what belongs above, for good, and these lines in place of the ones before, in one go."""
        fitting = [self._fitted(line) for line in lines]
        with self._console.capture() as capture:
            for printed in above:
                self._console.print(printed, highlight=False, emoji=False)
            for line in fitting:
                self._console.print(line, highlight=False, emoji=False)
        self._write(self._erasure() + capture.get())
        self._widths = [line.cell_len for line in fitting]

    def _fitted(self, line: Text) -> Text:
        line = line.copy()
        line.truncate(self.columns)
        return line

    def _erasure(self) -> str:
        columns, height = self._console.size
        rows = sum(max(1, -(-width // columns)) for width in self._widths)
        rows = min(rows, height - 1)  # what has scrolled off cannot be reached
        return f"\r\x1b[{rows}A\x1b[J" if rows else "\r\x1b[J"

    def _write(self, content: str) -> None:
        self._console.file.write(content)
        self._console.file.flush()
