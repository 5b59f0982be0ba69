"""Dividing rows into training, validation and test by a hash of their content.

A row's side depends on nothing but the row, the fractions and the seed: it stays when the dataset grows or is
reordered, and equal rows never stand on two sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelyard.v1.training_spec_pb2 import DataSplit

from .failures import DataUnusable
from .tables import Table

MIN_ROWS = 2
"""In every part: the spread of one row is zero, and with it every measure of fit."""

# SplitMix64 (Steele, Lea, Flood 2014): the increment and the two multipliers of its output function.
_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Parts:
    """Indices of the rows of each part, in the file's order."""

    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def split_rows(table: Table, split: DataSplit) -> Parts:
    """Divides the rows; raises DataUnusable if a part is left with too few."""
    position = unit_hashes(table, split.seed)
    is_test = position < split.test_fraction
    is_validation = ~is_test & (position < split.test_fraction + split.validation_fraction)
    masks = {"training": ~is_test & ~is_validation, "validation": is_validation, "test": is_test}
    parts = {name: np.flatnonzero(mask) for name, mask in masks.items()}
    for name, rows in parts.items():
        if len(rows) < MIN_ROWS:
            raise DataUnusable(
                f"{len(table):,} rows leave {len(rows)} for {name}, {MIN_ROWS} are needed; give more rows, "
                "another share or another split seed"
            )
    return Parts(**parts)


def unit_hashes(table: Table, seed: int) -> NDArray[np.float64]:
    """For each row a number from 0 to below 1, uniform over rows: SplitMix64 chained over the row's 64-bit words."""
    state = _mix(np.full(len(table), seed, dtype=np.uint64))
    for column in _words(table).T:
        state = _mix(state ^ column)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53  # the top 53 bits are all that a double holds


def _words(table: Table) -> NDArray[np.uint64]:
    """The content of each row as [rows, words], the same on every machine. Adding 0 makes -0.0 equal to 0.0."""
    rows = len(table)
    features = (table.features.reshape(rows, -1) + np.float32(0)).astype("<f4")
    if features.shape[1] % 2:
        features = np.pad(features, ((0, 0), (0, 1)))
    targets = (table.targets.reshape(rows, -1) + 0).astype("<f8")
    parts = [np.ascontiguousarray(features).view("<u8"), np.ascontiguousarray(targets).view("<u8")]
    return np.concatenate(parts, axis=1).astype(np.uint64, copy=False)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One SplitMix64 step. Integer overflow is meant: arithmetic modulo 2^64."""
    mixed = state + _INCREMENT
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MULTIPLIER_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MULTIPLIER_2
    return mixed ^ (mixed >> np.uint64(31))
