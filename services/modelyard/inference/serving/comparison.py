"""How a shadow version's answer compares with the one that the caller got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modelyard.oip.tensors import Array

ABSOLUTE_TOLERANCE = 1e-5
RELATIVE_TOLERANCE = 1e-3
"""Answers within these differ by rounding only: the bounds of the parity check behind the export."""


@dataclass(slots=True)
class Comparison:
    """Totals over answers."""

    rows: int = 0
    class_mismatches: int = 0
    max_absolute_difference: float = 0.0
    max_relative_difference: float = 0.0
    differs: bool = False
    """By more than rounding."""


def compare(answer: Mapping[str, Array], shadow: Mapping[str, Array]) -> Comparison:
    """Two answers to one request, output by output. An output that only one of them has, or another shape, differs."""
    result = Comparison()
    for name, expected in answer.items():
        found = shadow.get(name)
        if found is None or found.shape != expected.shape or (found.dtype.kind == "f") != (expected.dtype.kind == "f"):
            result.differs = True
        elif expected.dtype.kind == "f":
            _compare_numbers(result, expected.astype(np.float64), found.astype(np.float64))
        else:
            _compare_classes(result, expected, found)
    result.differs |= shadow.keys() != answer.keys()
    return result


def _compare_numbers(result: Comparison, expected: Array, found: Array) -> None:
    """Two NaN are alike; NaN and a number are infinitely apart."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        same = (expected == found) | (np.isnan(expected) & np.isnan(found))
        apart = np.where(same, 0.0, np.abs(found - expected))
        apart = np.where(np.isnan(apart), np.inf, apart)
        relative = np.where(same, 0.0, apart / np.abs(expected))
    relative = np.where(np.isnan(relative), np.inf, relative)
    allowed = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * np.abs(expected)
    result.max_absolute_difference = max(result.max_absolute_difference, float(apart.max(initial=0.0)))
    result.max_relative_difference = max(result.max_relative_difference, float(relative.max(initial=0.0)))
    result.differs |= not bool(np.all(same | (np.isfinite(apart) & (apart <= allowed))))
    if expected.ndim >= 2 and expected.shape[-1] > 1:
        _count_rows(result, np.argmax(expected, axis=-1), np.argmax(found, axis=-1))
    else:
        result.rows = max(result.rows, expected.shape[0] if expected.ndim else 1)


def _compare_classes(result: Comparison, expected: Array, found: Array) -> None:
    result.differs |= not bool(np.all(expected == found))
    _count_rows(result, expected, found)


def _count_rows(result: Comparison, expected: Array, found: Array) -> None:
    """A row, an item of the first dimension, names another class if anything in it is another."""
    rows = expected.shape[0] if expected.ndim else 1
    other = (expected != found).reshape(rows, -1).any(axis=1) if expected.size else np.zeros(rows, bool)
    result.rows = max(result.rows, rows)
    result.class_mismatches += int(np.count_nonzero(other))
