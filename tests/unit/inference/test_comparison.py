"""How two answers compare."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from modelyard.inference.serving.comparison import Comparison, compare

NAN, INF = math.nan, math.inf


def of(expected: Any, found: Any, dtype: Any = np.float32) -> Comparison:
    return compare({"y": np.array(expected, dtype)}, {"y": np.array(found, dtype)})


@given(nps.arrays(np.float32, nps.array_shapes(min_dims=0, max_dims=4, min_side=0), elements=st.floats(width=32)))
def test_an_answer_compares_with_itself_without_a_difference(array: Any) -> None:
    same = compare({"y": array}, {"y": array.copy()})
    assert (same.differs, same.class_mismatches) == (False, 0)
    assert (same.max_absolute_difference, same.max_relative_difference) == (0.0, 0.0)
    assert same.rows == (array.shape[0] if array.ndim else 1)


@pytest.mark.parametrize(
    ("expected", "found", "absolute", "relative", "differs"),
    [
        ([[1.0]], [[1.5]], 0.5, 0.5, True),
        ([[2.0], [100.0]], [[2.0], [100.05]], 0.05, 0.0005, False),
        ([[0.0]], [[0.000_001]], 1e-6, INF, False),
        ([[0.0]], [[1.0]], 1.0, INF, True),
        ([[NAN]], [[1.0]], INF, INF, True),
        ([[1.0]], [[NAN]], INF, INF, True),
        ([[INF]], [[INF]], 0.0, 0.0, False),
        ([[INF]], [[-INF]], INF, INF, True),
        ([[INF]], [[1.0]], INF, INF, True),
    ],
)
def test_numbers_by_their_largest_difference(
    expected: Any, found: Any, absolute: float, relative: float, differs: bool
) -> None:
    result = of(expected, found)
    assert result.max_absolute_difference == pytest.approx(absolute, rel=1e-3)
    assert result.max_relative_difference == pytest.approx(relative, rel=1e-3)
    assert result.differs is differs


def test_rows_that_name_another_class_are_counted() -> None:
    result = of([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]], [[0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
    assert (result.rows, result.class_mismatches) == (3, 2)
    labels = of([b"cat", b"dog"], [b"cat", b"cow"], object)
    assert (labels.rows, labels.class_mismatches, labels.differs) == (2, 1, True)
    numbers = of([[1, 2], [3, 4]], [[1, 2], [3, 5]], np.int64)
    assert (numbers.rows, numbers.class_mismatches) == (2, 1)


@pytest.mark.parametrize(
    "shadow",
    [
        {},
        {"z": np.zeros((1, 2), np.float32)},
        {"y": np.zeros((2, 2), np.float32)},
        {"y": np.zeros((1, 2), np.int64)},
        {"y": np.zeros((1, 2), np.float32), "more": np.zeros(1)},
    ],
)
def test_other_outputs_or_shapes_differ(shadow: dict[str, Any]) -> None:
    assert compare({"y": np.zeros((1, 2), np.float32)}, shadow).differs
