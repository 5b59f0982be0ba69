"""Reading a dataset's file into arrays: numbers only, nothing missing, every value finite."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelyard.training import CheckedSpec
from modelyard.v1 import tensor_pb2
from modelyard.v1.dataset_pb2 import Dataset
from modelyard.v1.training_spec_pb2 import TASK_CLASSIFICATION

from .failures import DataUnusable

Numbers: TypeAlias = NDArray[Any]
"""Booleans, integers or floats of any width, first dimension the rows."""

_CSV_BLOCK_BYTES = 8 * 1024 * 1024
"""A row must fit; the registry admits no longer ones."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows to learn from, in the file's order."""

    features: NDArray[np.float32]
    """[rows, *input_shape], raw: what a client of the served model will send."""
    targets: Numbers
    """REGRESSION: float32 [rows, targets] in the target's own unit. CLASSIFICATION: int64 [rows], the classes."""

    def __len__(self) -> int:
        return len(self.features)


def read_table(path: Path, dataset: Dataset, checked: CheckedSpec) -> Table:
    """Reads the spec's columns out of the file; raises DataUnusable if they are not what the dataset promised."""
    spec, plan = checked.spec, checked.plan
    names = [*spec.feature_columns, spec.target_column]
    columns = _READERS[dataset.format](path, {column.name: column for column in dataset.columns}, names)
    features = np.stack([_float32(columns[name], name) for name in spec.feature_columns], axis=1)
    rows = len(features)
    target = columns[spec.target_column]
    targets: Numbers
    if spec.task == TASK_CLASSIFICATION:
        targets = _classes(target, spec.target_column, plan.output_shape[0])
    else:
        targets = _float32(target, spec.target_column).reshape(rows, -1)
    return Table(features.reshape(rows, *plan.input_shape), targets)


def _read_csv(path: Path, columns: Mapping[str, Dataset.Column], names: Sequence[str]) -> dict[str, Numbers]:
    import pyarrow as pa
    from pyarrow import csv

    is_bool = {name: columns[name].data_type == tensor_pb2.DATA_TYPE_BOOL for name in names}
    types = {name: pa.bool_() if is_bool[name] else pa.float64() for name in names}
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(block_size=_CSV_BLOCK_BYTES),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(include_columns=list(names), column_types=types),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise DataUnusable(f"the CSV file cannot be read: {error}") from error
    return {name: _arrow_numbers(table.column(name), columns[name]) for name in names}


def _read_parquet(path: Path, columns: Mapping[str, Dataset.Column], names: Sequence[str]) -> dict[str, Numbers]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, columns=list(names))
        return {name: _arrow_numbers(table.column(name), columns[name]) for name in names}
    except (pa.ArrowException, KeyError) as error:
        raise DataUnusable(f"the Parquet file cannot be read: {error}") from error


def _read_npz(path: Path, columns: Mapping[str, Dataset.Column], names: Sequence[str]) -> dict[str, Numbers]:
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in names}
            return {name: _numeric(array, len(array), columns[name]) for name, array in arrays.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError) as error:
        raise DataUnusable(f"the NPZ file cannot be read: {error}") from error


_READERS = {
    Dataset.FORMAT_CSV: _read_csv,
    Dataset.FORMAT_PARQUET: _read_parquet,
    Dataset.FORMAT_NPZ: _read_npz,
}


def _arrow_numbers(column: Any, description: Dataset.Column) -> Numbers:
    """An Arrow column as [rows, *shape]; each fixed-size list is a dimension."""
    import pyarrow as pa

    rows = len(column)
    values = column.combine_chunks()
    _refuse_missing(values, description)
    while pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
        _refuse_missing(values, description)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return _numeric(values.to_numpy(zero_copy_only=False), rows, description)


def _refuse_missing(values: Any, description: Dataset.Column) -> None:
    if values.null_count:
        raise DataUnusable(f"column {description.name!r} has {values.null_count:,} missing values")


def _numeric(values: Numbers, rows: int, description: Dataset.Column) -> Numbers:
    """`values` as [rows, *shape]; raises DataUnusable if they are no numbers or not of that shape."""
    if values.dtype.kind not in "biuf":
        raise DataUnusable(f"column {description.name!r} holds {values.dtype}; numbers are needed")
    shape = (rows, *description.shape)
    if values.size != prod(shape):
        raise DataUnusable(f"column {description.name!r} does not hold rows of shape {list(description.shape)}")
    return values.reshape(shape)


def _float32(values: Numbers, name: str) -> NDArray[np.float32]:
    """The network's number format; raises DataUnusable for values that it does not have."""
    with np.errstate(over="ignore"):  # a too large value becomes infinite and is refused below
        converted = values.astype(np.float32)
    finite = np.isfinite(converted)
    if not finite.all():
        row = int(np.argmin(finite.reshape(len(finite), -1).all(axis=1)))
        raise DataUnusable(
            f"column {name!r} has {int((~finite).sum()):,} values that are no finite 32-bit floats, "
            f"first in row {row + 1:,}: {values[row]}"
        )
    return converted


def _classes(values: Numbers, name: str, outputs: int) -> NDArray[np.int64]:
    valid = np.isfinite(values) & (values >= 0) & (values < outputs) & (values == np.floor(values))
    if not valid.all():
        row = int(np.argmin(valid))
        raise DataUnusable(
            f"column {name!r} must hold classes from 0 to {outputs - 1}; row {row + 1:,} has {values[row]}"
        )
    return values.astype(np.int64)
