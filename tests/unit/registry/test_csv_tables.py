"""What a CSV file turns out to be, and the place of what is wrong in one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import MalformedContent
from modelyard.registry.content.csv_tables import read_csv
from modelyard.registry.content.limits import TableLimits
from modelyard.registry.content.messages import ColumnFacts, TableFacts


def survey(folder: Path, content: str | bytes, limits: TableLimits | None = None) -> TableFacts:
    path = folder / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_csv(path, limits or TableLimits())


def complaint(folder: Path, content: str | bytes, limits: TableLimits | None = None) -> str:
    with pytest.raises(MalformedContent) as raised:
        survey(folder, content, limits)
    return raised.value.message


def column(folder: Path, *values: str) -> ColumnFacts:
    # A second column keeps an empty value from being an empty line, which RFC 4180 readers skip.
    content = "\n".join(["c,k", *(f"{value},0" for value in values)])
    return survey(folder, content).columns[0]


def test_rows_and_columns_are_counted_in_the_order_of_the_file(tmp_path: Path) -> None:
    table = survey(tmp_path, "b,a\n1,2\n3,4\n5,6\n")
    assert table.row_count == 3
    assert [facts.name for facts in table.columns] == ["b", "a"]


def test_whole_numbers_are_int64_with_their_range(tmp_path: Path) -> None:
    facts = column(tmp_path, "3", "-7", "12")
    assert (facts.data_type, facts.minimum, facts.maximum) == ("INT64", -7, 12)


def test_one_fraction_makes_a_column_fp64(tmp_path: Path) -> None:
    facts = column(tmp_path, "3", "-7.5", "1e3", " 2 ")
    assert (facts.data_type, facts.minimum, facts.maximum) == ("FP64", -7.5, 1000)


def test_whole_numbers_beyond_64_bits_are_fp64(tmp_path: Path) -> None:
    assert column(tmp_path, "1", "99999999999999999999").data_type == "FP64"


def test_true_and_false_are_bool(tmp_path: Path) -> None:
    facts = column(tmp_path, "true", "False", "TRUE")
    assert (facts.data_type, facts.minimum, facts.maximum) == ("BOOL", 0, 1)


def test_missing_values_and_not_numbers_are_counted_apart(tmp_path: Path) -> None:
    facts = column(tmp_path, "1", "", "NA", "nan", "-inf", "NaN", "null")
    assert (facts.null_count, facts.non_finite_count) == (3, 3)
    assert (facts.data_type, facts.minimum, facts.maximum) == ("FP64", 1, 1)


def test_a_column_without_any_value_is_fp64_and_all_missing(tmp_path: Path) -> None:
    facts = column(tmp_path, "", "", "")
    assert (facts.data_type, facts.null_count, facts.minimum, facts.maximum) == ("FP64", 3, 0, 0)


def test_text_in_a_column_of_numbers_is_told_with_its_row(tmp_path: Path) -> None:
    facts = column(tmp_path, "1", "2.5", "", "abc", "4", "5", "def", "6")
    assert (facts.data_type, facts.first_text_row, facts.first_text) == ("BYTES", 4, "abc")


def test_a_column_that_is_mostly_text_is_text(tmp_path: Path) -> None:
    facts = column(tmp_path, "x", "1", "y", "z")
    assert (facts.data_type, facts.first_text_row, facts.first_text) == ("BYTES", 0, "")


def test_a_truth_value_among_numbers_is_text(tmp_path: Path) -> None:
    facts = column(tmp_path, "1", "2", "true")
    assert (facts.data_type, facts.first_text_row, facts.first_text) == ("BYTES", 3, "true")


@pytest.mark.parametrize("odd", ["0x10", "1_000", "--1", "1e", ".", "1,5"])
def test_what_only_looks_like_a_number_is_text(tmp_path: Path, odd: str) -> None:
    facts = column(tmp_path, "1", "2", f'"{odd}"', "4")
    assert (facts.first_text_row, facts.first_text) == (3, odd)


def test_long_text_is_cut(tmp_path: Path) -> None:
    facts = column(tmp_path, "1", "2", "x" * 500)
    assert len(facts.first_text) == 100


def test_the_row_of_text_counts_over_blocks(tmp_path: Path) -> None:
    rows = [f"{number},{number}" for number in range(1, 5001)]
    rows[3210] = "3211,oops"
    facts = survey(tmp_path, "a,b\n" + "\n".join(rows), TableLimits(max_row_bytes=1024)).columns[1]
    assert (facts.first_text_row, facts.first_text) == (3211, "oops")


def test_quoted_values_may_hold_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    table = survey(tmp_path, 'a,b\r\n"x, ""y""\nz",1\r\nw,2\r\n')
    assert table.row_count == 2
    assert [facts.data_type for facts in table.columns] == ["BYTES", "INT64"]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    assert survey(tmp_path, b"\xef\xbb\xbfa,b\n1,2\n").columns[0].name == "a"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "empty"),
        ("a,b\n", "no rows"),
        ("a,b", "no rows"),
        ("\n\n", "no rows"),
        ("a,b,a\n1,2,3\n", "columns 1 and 3 are both named 'a'"),
        ("a,,c\n1,2,3\n", "column 2 has no name"),
        ("a;b\n1;2\n", "separated by commas"),
        ("a,b\n1,2\n3\n4,5\n", "row 2 has 1 columns, the header has 2: '3'"),
        ("a,b\n1,2\n3,4\n4,5,6\n", "row 3 has 3 columns, the header has 2: '4,5,6'"),
        ('a,b\n1,2\n"3,4\n5,6\n', "row 2 has 1 columns"),
        ("a\x00,b\n1,2\n", "printable characters"),
        (b"a,b\n1,2\n\xff,4\n", "line 3, byte 9 of the file is not UTF-8"),
        (b"a\xff,b\n1,2\n", "line 1, byte 2 of the file is not UTF-8"),
        ("a,b\n1,ä\n".encode("latin-1"), "line 2, byte 7 of the file is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        (",".join(f"c{n}" for n in range(20)) + "\n", "20 columns, at most 10"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, content: str | bytes, expected: str) -> None:
    assert expected in complaint(tmp_path, content, TableLimits(max_columns=10))


def test_a_ragged_row_far_into_the_file_is_told_with_its_number(tmp_path: Path) -> None:
    content = "a,b\n" + "1,2\n" * 4000 + "1\n" + "1,2\n" * 10
    assert "row 4001 has 1 columns" in complaint(tmp_path, content, TableLimits(max_row_bytes=1024))


def test_a_row_without_end_is_refused(tmp_path: Path) -> None:
    content = "a,b\n1," + "x" * 100_000 + "\n"
    assert "longer than" in complaint(tmp_path, content, TableLimits(max_row_bytes=1024))


@given(numbers=st.lists(st.floats(width=64) | st.integers(-(2**53), 2**53) | st.none(), min_size=1, max_size=30))
def test_any_numbers_are_counted_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[float | int | None]
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    facts = column(folder, *("" if number is None else repr(number) for number in numbers))
    present = [number for number in numbers if number is not None]
    finite = [number for number in present if math.isfinite(number)]
    assert facts.null_count == len(numbers) - len(present)
    assert facts.non_finite_count == len(present) - len(finite)
    assert (facts.minimum, facts.maximum) == ((min(finite), max(finite)) if finite else (0, 0))
    whole = bool(present) and all(isinstance(number, int) for number in present)
    assert facts.data_type == ("INT64" if whole else "FP64")


@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_table_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("csv")
    try:
        table = survey(folder, content)
    except MalformedContent as error:
        assert error.message  # noqa: PT017 - the other outcome is as good
    else:
        assert table.row_count > 0
