"""Curves drawn with characters."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from modelyard.cli.plotting import Scale, caption, plot

FALLING = {"training": [(float(x), 100.0 - x) for x in range(100)]}


def drawn(
    lines: dict[str, list[tuple[float, float]]], *, columns: int = 40, rows: int = 6, ascii_only: bool = True
) -> list[str]:
    return [row.plain for row in plot(lines, columns, rows, ascii_only=ascii_only)]


def body(row: str) -> str:
    """What is right of the axis."""
    return row[11:]


def test_a_falling_line_goes_from_the_upper_left_to_the_lower_right() -> None:
    rows = drawn(FALLING)
    assert body(rows[0]).startswith("*")
    assert body(rows[-1]).rstrip().endswith("*")
    firsts = [body(row).index("*") for row in rows]
    assert firsts == sorted(firsts)


def test_the_axis_names_the_greatest_and_the_smallest_value() -> None:
    rows = drawn(FALLING)
    assert rows[0].split()[0] == "100"
    assert rows[-1].split()[0] == "1"


def test_braille_has_eight_dots_to_a_cell() -> None:
    rows = drawn({"training": [(0.0, 0.0), (1.0, 1.0)]}, ascii_only=False)
    dots = {character for row in rows for character in body(row) if character != " "}
    assert dots
    assert all("\u2800" < character <= "\u28ff" for character in dots)


def test_two_lines_can_be_told_apart_without_colours() -> None:
    lines = {"training": [(0.0, 0.0), (9.0, 0.0)], "validation": [(0.0, 1.0), (9.0, 1.0)]}
    rows = drawn(lines)
    assert set(body(rows[0])) == {"*"}
    assert set(body(rows[-1])) == {".", " "}
    legend = caption(lines, "epoch 1", "epoch 9", 70, ascii_only=True).plain
    assert "... training" in legend
    assert "*** validation" in legend


def test_a_wide_range_is_drawn_on_a_logarithmic_scale_and_says_so() -> None:
    decades = {"training": [(float(x), 10.0 ** (3 - x)) for x in range(6)]}
    assert Scale.of([y for _, y in decades["training"]]).height(1.0) == 0.4
    assert "logarithmic" in caption(decades, "", "", 70, ascii_only=True).plain
    assert "logarithmic" not in caption(FALLING | {"training": [(0, 1.0), (1, 2.0)]}, "", "", 70, ascii_only=True).plain


def test_a_range_that_touches_zero_stays_linear() -> None:
    assert not Scale.of([0.0, 1e6]).logarithmic
    assert not Scale.of([-1.0, 1e6]).logarithmic


def test_a_line_that_does_not_move_is_drawn() -> None:
    assert any("*" in body(row) for row in drawn({"training": [(float(x), 0.5) for x in range(9)]}))


def test_one_point_is_drawn() -> None:
    assert sum(body(row).count("*") for row in drawn({"training": [(3.0, 0.5)]})) == 1


def test_nothing_is_drawn_of_nothing_or_where_there_is_no_room() -> None:
    assert plot({}, 80, 10) == []
    assert plot({"training": []}, 80, 10) == []
    assert plot(FALLING, 10, 10) == []
    assert plot(FALLING, 80, 1) == []


finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)


@given(
    st.lists(st.tuples(st.floats(0, 1e12), finite), min_size=1, max_size=40), st.integers(17, 120), st.integers(2, 20)
)
def test_whatever_the_values_the_plot_has_its_size(points: list[tuple[float, float]], columns: int, rows: int) -> None:
    picture = plot({"training": sorted(points)}, columns, rows)
    assert len(picture) == rows
    assert {row.cell_len for row in picture} == {columns}


@given(finite, finite)
def test_every_value_is_within_its_scale(one: float, other: float) -> None:
    scale = Scale.of([one, other])
    for value in (one, other):
        assert -1e-9 <= scale.height(value) <= 1 + 1e-9
        assert not math.isnan(scale.height(value))
