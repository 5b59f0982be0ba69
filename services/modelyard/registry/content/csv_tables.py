"""Surveys a CSV file (RFC 4180, UTF-8, one header line) block by block, in memory that does not grow with the file.

PyArrow's own type inference looks at the first block only and then either fails or calls a column text. Here every
value is read as text and judged, so that a table which is numbers but for one cell is told by that cell's place. What
counts as missing, as a number and as a truth value is what PyArrow's CSV reader takes for one.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from modelyard.core.errors import MalformedContent
from modelyard.core.names import shorten

from .limits import MEBIBYTE, TableLimits
from .messages import ColumnFacts, TableFacts
from .tables import NumberRange, check_column_names

_NAN_SPELLINGS = ("nan", "-nan", "1.#qnan", "-1.#qnan", "1.#ind", "-1.#ind")
_MISSING = pa.array(
    sorted(word for word in csv.ConvertOptions().null_values if word.lower() not in _NAN_SPELLINGS), pa.string()
)
"""PyArrow's list without the spellings of NaN: those are values that are not numbers, not missing ones."""
_NAN = pa.array(
    sorted(word for word in csv.ConvertOptions().null_values if word.lower() in _NAN_SPELLINGS), pa.string()
)
_TRUE = pa.array(["True", "TRUE", "true"], pa.string())
_FALSE = pa.array(["False", "FALSE", "false"], pa.string())
_TRIED_FIRST = 100
_NUMBER = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf|infinity|nan))$"


def read_csv(path: Path, limits: TableLimits) -> TableFacts:
    """Reads the file through; raises MalformedContent with the place of what is wrong."""
    if path.stat().st_size == 0:
        raise MalformedContent("the CSV file is empty")
    _check_encoding(path)
    return _Reader(path, limits).read()


class _Reader:
    """One reading of one file."""

    def __init__(self, path: Path, limits: TableLimits) -> None:
        self._path = path
        self._limits = limits
        self._ragged: csv.InvalidRow | None = None

    def read(self) -> TableFacts:
        try:
            return self._read()
        except pa.ArrowInvalid as error:
            raise self._explain(error) from error

    def _read(self) -> TableFacts:
        names = self._names()
        types = dict.fromkeys(names, pa.string())
        columns = [_CsvColumn(name) for name in names]
        row_count = 0
        with self._open(csv.ConvertOptions(column_types=types, strings_can_be_null=False)) as batches:
            for batch in batches:
                for column, values in zip(columns, batch.columns, strict=True):
                    column.add(values, first_row=row_count + 1)
                row_count += batch.num_rows
        if not row_count:
            raise MalformedContent("the CSV file has a header line and no rows")
        return TableFacts(row_count, tuple(column.facts() for column in columns))

    def _names(self) -> list[str]:
        with self._open(csv.ConvertOptions()) as batches:
            names: list[str] = batches.schema.names
        if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
            raise MalformedContent(f"the header is one column, {shorten(names[0])!r}; columns are separated by commas")
        check_column_names(names, self._limits)
        return names

    def _open(self, convert: csv.ConvertOptions) -> csv.CSVStreamingReader:
        return csv.open_csv(
            self._path,
            read_options=csv.ReadOptions(use_threads=False, block_size=self._limits.max_row_bytes),
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=self._note_ragged),
            convert_options=convert,
        )

    def _note_ragged(self, row: csv.InvalidRow) -> str:
        self._ragged = self._ragged or row
        return "error"

    def _explain(self, error: pa.ArrowInvalid) -> MalformedContent:
        """What a caller is told of PyArrow's error."""
        if self._ragged is not None:
            row = self._ragged
            return MalformedContent(
                f"row {row.number - 1} has {row.actual_columns} columns, the header has {row.expected_columns}: "
                f"{shorten(row.text)!r}"
            )
        if "straddl" in str(error):
            megabytes = self._limits.max_row_bytes // MEBIBYTE
            return MalformedContent(f"a row is longer than {megabytes} MiB, or a quotation mark is not closed")
        if "Empty CSV" in str(error):
            return MalformedContent("the CSV file has a header line at most, and no rows")
        return MalformedContent(f"not a CSV file: {shorten(str(error), 300)}")


@dataclass(slots=True)
class _CsvColumn:
    """One column whose type is not known before the last value has been seen."""

    name: str
    null_count: int = 0
    number_count: int = 0
    word_count: int = 0
    """Values that are neither number nor truth value."""
    truth_count: int = 0
    integers_only: bool = True
    first_other_row: int = 0
    first_other: str = ""
    numbers: NumberRange = field(default_factory=NumberRange)
    truths: NumberRange = field(default_factory=NumberRange)

    def add(self, values: pa.StringArray, *, first_row: int) -> None:
        """Takes in the next values; `first_row` is the first one's number."""
        text = pc.ascii_trim_whitespace(values)
        missing = pc.is_in(text, _MISSING)
        self.null_count += pc.sum(missing).as_py() or 0
        text = pc.if_else(missing, pa.scalar(None, pa.string()), text)
        text = pc.if_else(pc.is_in(text, _NAN), "nan", text)
        numbers = _cast(text, pa.float64())
        if numbers is None:
            self._add_mixed(text, first_row)
        else:
            self._add_numbers(text, numbers)

    def _add_mixed(self, text: pa.StringArray, first_row: int) -> None:
        """For values of which some are no numbers."""
        is_number = pc.fill_null(pc.match_substring_regex(text, _NUMBER), False)
        number_text = pc.if_else(is_number, text, pa.scalar(None, pa.string()))
        self._add_numbers(number_text, number_text.cast(pa.float64()))
        others = pc.if_else(is_number, pa.scalar(None, pa.string()), text)
        true_count = pc.sum(pc.is_in(others, _TRUE)).as_py()
        false_count = pc.sum(pc.is_in(others, _FALSE)).as_py()
        self.truths.add(np.array([True] * bool(true_count) + [False] * bool(false_count), dtype=np.bool_))
        self.truth_count += true_count + false_count
        self.word_count += len(others) - others.null_count - true_count - false_count
        if not self.first_other_row and others.null_count < len(others):
            index = pc.index(pc.is_valid(others), True).as_py()
            self.first_other_row, self.first_other = first_row + index, others[index].as_py()

    def _add_numbers(self, text: pa.StringArray, numbers: pa.DoubleArray) -> None:
        """Takes in the same values as text and as numbers; null where there is none."""
        self.number_count += len(numbers) - numbers.null_count
        self.numbers.add(numbers.drop_null().to_numpy(zero_copy_only=False))
        self.integers_only = self.integers_only and _cast(text, pa.int64()) is not None

    def facts(self) -> ColumnFacts:
        """The type that fits every value, and what was counted."""
        others = self.word_count + self.truth_count
        if others and (self.word_count or self.number_count):
            mostly_numbers = self.number_count > others
            return ColumnFacts(
                self.name, "BYTES", null_count=self.null_count,
                first_text_row=self.first_other_row if mostly_numbers else 0,
                first_text=shorten(self.first_other, 99) if mostly_numbers else "",
            )  # fmt: skip
        integers = self.number_count > 0 and self.integers_only
        data_type = "BOOL" if others else "INT64" if integers else "FP64"
        found = self.truths if others else self.numbers
        seen = found.minimum <= found.maximum
        return ColumnFacts(
            self.name, data_type, null_count=self.null_count, non_finite_count=found.non_finite_count,
            minimum=found.minimum if seen else 0.0, maximum=found.maximum if seen else 0.0,
        )  # fmt: skip


def _cast(text: pa.StringArray, wanted: pa.DataType) -> pa.Array | None:
    """The values as numbers; None if one of them is none. A few are tried first: Arrow is slow where many fail."""
    try:
        text.slice(0, _TRIED_FIRST).cast(wanted)
        return text.cast(wanted)
    except pa.ArrowInvalid:
        return None


def _check_encoding(path: Path) -> None:
    """Raises MalformedContent with the place where the file stops being UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, done = 1, 0
    with path.open("rb") as file:
        if file.read(2) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
            raise MalformedContent("the file is in UTF-16; expected UTF-8")
        file.seek(0)
        while True:
            chunk = file.read(MEBIBYTE)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                place = f"line {line}, byte {done - pending + error.start + 1} of the file"
                raise MalformedContent(f"{place} is not UTF-8") from error
            if not chunk:
                return
            line += chunk.count(b"\n")
            done += len(chunk)
