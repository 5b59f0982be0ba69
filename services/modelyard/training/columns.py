"""Whether a dataset's columns can be learned from: known from its schema, before anything is read."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass

from modelyard.core.names import shorten
from modelyard.v1 import tensor_pb2
from modelyard.v1.dataset_pb2 import Dataset
from modelyard.v1.training_spec_pb2 import TASK_CLASSIFICATION, TrainingSpec

from .fields import Field, number, shape_text
from .layers import Shape

GREATEST_FLOAT32 = 3.4028234663852886e38
MIN_ROWS_PER_PART = 2
"""Rows that each part of the split must be expected to get: one row has no spread to measure an error against."""
MIN_CLASSES = 2
_UNUSABLE_TYPES = (tensor_pb2.DATA_TYPE_UNSPECIFIED, tensor_pb2.DATA_TYPE_BYTES)


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """What the columns of a spec give, in shapes of one row."""

    feature_shape: Shape
    """`(n,)` for scalar columns, the column's own shape for an array."""
    target_shape: Shape
    """Empty for a scalar, `(k,)` for several targets of a regression."""
    class_count: int
    """For a CLASSIFICATION, one more than the greatest class in the data; else 0."""


def plan_columns(spec: TrainingSpec, dataset: Dataset, at: Field) -> ColumnPlan | None:
    """Checks the spec's columns against `dataset` and fills in the default features; None if they do not fit."""
    columns = {column.name: column for column in dataset.columns}
    if not spec.feature_columns:
        spec.feature_columns.extend(name for name in columns if name != spec.target_column)
    feature_shape = _plan_features(spec, columns, at.child("feature_columns"))
    target_shape = _plan_target(spec, columns, at.child("target_column"))
    _check_rows(spec, dataset, at)
    if feature_shape is None or target_shape is None:
        return None
    is_classes = spec.task == TASK_CLASSIFICATION
    greatest = int(columns[spec.target_column].maximum)
    return ColumnPlan(feature_shape, target_shape, max(MIN_CLASSES, greatest + 1) if is_classes else 0)


def _plan_features(spec: TrainingSpec, columns: Mapping[str, Dataset.Column], at: Field) -> Shape | None:
    names = list(spec.feature_columns)
    if not at.check(bool(names), "expected at least one column besides the target"):
        return None
    found = [_find(name, columns, at.item(index)) for index, name in enumerate(names)]
    usable = [column is not None and _is_numeric(column, at.item(index)) for index, column in enumerate(found)]
    if not all(usable):
        return None
    shapes = [tuple(column.shape) for column in found if column is not None]
    if len(shapes) == 1 and shapes[0]:
        return shapes[0]
    arrays = [index for index, shape in enumerate(shapes) if shape]
    for index in arrays:
        at.item(index).reject(
            f"column {names[index]!r} holds arrays of shape {shape_text(shapes[index])}; "
            "a column of arrays must be the only feature"
        )
    return None if arrays else (len(shapes),)


def _plan_target(spec: TrainingSpec, columns: Mapping[str, Dataset.Column], at: Field) -> Shape | None:
    if not spec.target_column:
        return None  # already noted as missing
    column = _find(spec.target_column, columns, at)
    if column is None or not _is_numeric(column, at):
        return None
    shape = tuple(column.shape)
    if spec.task == TASK_CLASSIFICATION:
        return shape if _holds_classes(column, at) else None
    fits = f"expected numbers or vectors, got arrays of shape {shape_text(shape)}"
    return shape if at.check(len(shape) <= 1, fits) else None


def _find(name: str, columns: Mapping[str, Dataset.Column], at: Field) -> Dataset.Column | None:
    column = columns.get(name)
    if column is None:
        close = difflib.get_close_matches(name, columns, n=1)
        known = f"did you mean {close[0]!r}?" if close else f"it has {_some(list(columns))}"
        at.reject(f"the dataset has no column {shorten(name)!r}; {known}")
    return column


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(shorten(name, 40)) for name in names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown or "no columns"


def _is_numeric(column: Dataset.Column, at: Field) -> bool:
    """Whether every value is a finite number that a 32-bit float can hold."""
    if column.first_text_row:
        at.reject(
            f"column {column.name!r} has text among its numbers, first {shorten(column.first_text)!r} "
            f"in row {column.first_text_row:,}"
        )
        return False
    if column.data_type in _UNUSABLE_TYPES:
        at.reject(f"column {column.name!r} holds text; numbers are needed")
        return False
    missing = at.check(column.null_count == 0, f"column {column.name!r} has {column.null_count:,} missing values")
    finite = at.check(
        column.non_finite_count == 0,
        f"column {column.name!r} has {column.non_finite_count:,} values that are not a number or infinite",
    )
    largest = max(abs(column.minimum), abs(column.maximum))
    fits = at.check(
        largest <= GREATEST_FLOAT32,
        f"column {column.name!r} goes up to {largest:g}, above {GREATEST_FLOAT32:g}, the greatest 32-bit float",
    )
    return missing and finite and fits


def _holds_classes(column: Dataset.Column, at: Field) -> bool:
    """Whether the schema allows integers from 0. (That no fraction hides between, the trainer sees.)"""
    shape = tuple(column.shape)
    if not at.check(not shape, f"expected one class per row, got arrays of shape {shape_text(shape)}"):
        return False
    for end in (column.minimum, column.maximum):
        integral = end >= 0 and end.is_integer()
        if not at.check(integral, f"expected classes numbered from 0, column {column.name!r} holds {number(end)}"):
            return False
    return True


def _check_rows(spec: TrainingSpec, dataset: Dataset, at: Field) -> None:
    """Whether training, validation and test may each expect a few rows."""
    if not at.child("dataset").check(dataset.row_count > 0, f"{dataset.name} has no rows"):
        return
    split = spec.split
    smallest = min(split.validation_fraction, split.test_fraction, 1 - split.validation_fraction - split.test_fraction)
    if not 0 < smallest < 1:
        return  # already noted as a wrong split
    needed = math.ceil(MIN_ROWS_PER_PART / smallest)
    at.child("split").check(
        dataset.row_count >= needed,
        f"{dataset.name} has {dataset.row_count:,} rows; {needed:,} or more are needed for a share of {smallest:g}",
    )
