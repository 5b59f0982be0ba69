"""The lines at the end of a terminal that are drawn over and over."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console, ConsoleDimensions
from rich.text import Text

from modelyard.cli.terminal_region import TerminalRegion


def terminal(width: int = 40, height: int = 20) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=True, width=width, height=height, color_system=None, soft_wrap=True), file


def rows_up(written: str) -> int:
    """How far the cursor went up before it erased."""
    (found,) = re.findall(r"\x1b\[(\d+)A\x1b\[J", written)
    return int(found)


def after(file: io.StringIO) -> str:
    """What has been written since the last look."""
    written = file.getvalue()
    file.seek(0)
    file.truncate()
    return written


def test_the_second_drawing_replaces_the_first_and_what_is_above_stays() -> None:
    console, file = terminal()
    with TerminalRegion(console) as region:
        region.draw([Text("one"), Text("two")])
        after(file)
        region.draw([Text("three")], above=[Text("for good")])
        written = after(file)
    assert rows_up(written) == 2
    assert written.index("for good") < written.index("three")


def test_no_line_is_as_wide_as_the_window() -> None:
    console, file = terminal(width=20)
    with TerminalRegion(console) as region:
        region.draw([Text("x" * 50)])
    assert "x" * 19 in file.getvalue()
    assert "x" * 20 not in file.getvalue()


def test_a_narrower_window_has_broken_the_old_lines_into_more_rows() -> None:
    console, file = terminal(width=40)
    with TerminalRegion(console) as region:
        region.draw([Text("x" * 39), Text("short"), Text("")])
        console.size = ConsoleDimensions(10, 20)
        after(file)
        region.draw([Text("now")])
    assert rows_up(file.getvalue()) == 4 + 1 + 1


def test_what_has_scrolled_off_a_lower_window_is_not_gone_after() -> None:
    console, file = terminal(height=20)
    with TerminalRegion(console) as region:
        region.draw([Text(str(number)) for number in range(15)])
        console.size = ConsoleDimensions(40, 8)
        after(file)
        region.draw([Text("now")])
    assert rows_up(file.getvalue()) == 7


def test_the_cursor_comes_back_whatever_happens() -> None:
    console, file = terminal()
    with pytest.raises(KeyboardInterrupt), TerminalRegion(console):
        raise KeyboardInterrupt
    assert file.getvalue().endswith("\x1b[?25h")
