"""Surveys a Parquet file batch by batch."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from modelyard.core.errors import MalformedContent
from modelyard.core.names import shorten

from .limits import MEBIBYTE, TableLimits
from .messages import TableFacts
from .tables import ColumnSurvey, check_column_names

_BATCH_BYTES = 16 * MEBIBYTE
_MAX_BATCH_ROWS = 65_536

_NUMBER_TYPES: dict[pa.DataType, str] = {
    pa.bool_(): "BOOL",
    pa.uint8(): "UINT8", pa.uint16(): "UINT16", pa.uint32(): "UINT32", pa.uint64(): "UINT64",
    pa.int8(): "INT8", pa.int16(): "INT16", pa.int32(): "INT32", pa.int64(): "INT64",
    pa.float16(): "FP16", pa.float32(): "FP32", pa.float64(): "FP64",
    pa.null(): "FP64",  # every value is missing
}  # fmt: skip


def read_parquet(path: Path, limits: TableLimits) -> TableFacts:
    """Reads the file through; raises MalformedContent if it cannot be read or holds what cannot be trained on."""
    try:
        # One row group's columns are read through a small buffer each, never whole (`pre_buffer`), never mapped.
        with pq.ParquetFile(path, buffer_size=MEBIBYTE, pre_buffer=False, memory_map=False) as file:
            return _survey(file, limits)
    except MemoryError:  # PyArrow's is an ArrowException too
        raise
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        raise MalformedContent(f"not a whole Parquet file: {shorten(str(error), 300)}") from error


def _survey(file: pq.ParquetFile, limits: TableLimits) -> TableFacts:
    schema: pa.Schema = file.schema_arrow
    check_column_names(schema.names, limits)
    columns = [_ParquetColumn(field) for field in schema]
    if not columns:
        raise MalformedContent("the Parquet file has no columns")
    row_count = 0
    for batch in file.iter_batches(batch_size=_batch_rows(file.metadata), use_threads=False):
        row_count += batch.num_rows
        for column, values in zip(columns, batch.columns, strict=True):
            column.add(values)
    if not row_count:
        raise MalformedContent("the Parquet file has no rows")
    return TableFacts(row_count, tuple(column.survey.facts() for column in columns))


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """So many rows that a batch stays near `_BATCH_BYTES`. The file's own figures may lie: the process is bounded."""
    size: int = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    row_bytes = max(1, size // max(1, int(metadata.num_rows)))
    return max(1, min(_MAX_BATCH_ROWS, _BATCH_BYTES // row_bytes))


class _ParquetColumn:
    """One column: a scalar, or an array of fixed shape as nested fixed-size lists."""

    def __init__(self, field: pa.Field) -> None:
        shape: list[int] = []
        element = field.type
        while pa.types.is_fixed_size_list(element):
            shape.append(element.list_size)
            element = element.value_type
        if pa.types.is_dictionary(element):
            element = element.value_type
        self.survey = ColumnSurvey(field.name, _data_type(field, element), tuple(shape))

    def add(self, values: pa.Array) -> None:
        """Takes in the next values."""
        self.survey.null_count += values.null_count
        for _ in self.survey.shape:
            values = values.flatten()  # leaves out the elements of missing lists
            self.survey.null_count += values.null_count
        if self.survey.data_type != "BYTES":
            present = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
            self.survey.numbers.add(present.drop_null().to_numpy(zero_copy_only=False))


def _data_type(field: pa.Field, element: pa.DataType) -> str:
    known = _NUMBER_TYPES.get(element)
    if known is not None:
        return known
    is_text = (
        pa.types.is_string(element) or pa.types.is_large_string(element) or pa.types.is_string_view(element)
        or pa.types.is_binary(element) or pa.types.is_large_binary(element) or pa.types.is_binary_view(element)
        or pa.types.is_fixed_size_binary(element)
    )  # fmt: skip
    if is_text:
        return "BYTES"
    raise MalformedContent(
        f"column {shorten(field.name)!r} is of type {shorten(str(field.type))}; expected numbers, truth values, text, "
        "or fixed-size lists of them"
    )
