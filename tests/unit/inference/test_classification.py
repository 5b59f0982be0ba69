"""The highest values of an output, in the protocol's form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelyard.inference.protocol.classification import top_classes
from modelyard.oip.datatypes import DATATYPES, to_bfloat16
from modelyard.oip.tensors import encode_raw


def classes(values: Any, datatype: str, count: int, *, batched: bool = True) -> Any:
    kind = DATATYPES[datatype]
    array = np.asarray(values, kind.dtype)
    return top_classes(encode_raw(array, kind), kind, array.shape, count, batched=batched).tolist()


def test_the_protocol_s_own_example() -> None:
    assert classes([1, 5, 10, 4], "FP32", 2, batched=False) == ["10.000000:2", "5.000000:1"]


def test_each_row_has_its_own_classes() -> None:
    assert classes([[1, 3, 2], [9, 7, 8]], "INT32", 2) == [["3:1", "2:2"], ["9:0", "8:2"]]


def test_there_are_no_more_classes_than_elements() -> None:
    assert classes([[1, 2]], "UINT8", 10**12) == [["2:1", "1:0"]]


def test_a_row_of_several_dimensions_is_read_flat() -> None:
    assert classes([[[1, 2], [4, 3]]], "INT8", 2) == [["4:2", "3:3"]]


def test_equal_values_keep_their_order_and_nan_is_last() -> None:
    nan = float("nan")
    assert classes([[nan, 1, 1, 2, -np.inf]], "FP64", 5) == [
        ["2.000000:3", "1.000000:1", "1.000000:2", "nan:0", "-inf:4"]
    ]


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name not in ("BOOL", "BYTES", "BF16")])
def test_every_type_with_an_order_is_ranked(datatype: str) -> None:
    shown = ["3:1", "1:0"] if "INT" in datatype else ["3.000000:1", "1.000000:0"]
    assert classes([[1, 3]], datatype, 2) == [shown]


def test_bfloat16_is_ranked_by_its_values() -> None:
    bits = to_bfloat16(np.array([[-1, 0.5]], np.float32))
    kind = DATATYPES["BF16"]
    assert top_classes(encode_raw(bits, kind), kind, (1, 2), 1, batched=True).tolist() == [["0.500000:1"]]


def test_the_widest_integers_lose_nothing() -> None:
    assert classes([[2**64 - 1, 2**64 - 2]], "UINT64", 1) == [[f"{2**64 - 1}:0"]]
    assert classes([[-(2**63), 2**63 - 1]], "INT64", 2) == [[f"{2**63 - 1}:1", f"{-(2**63)}:0"]]


@pytest.mark.parametrize(("shape", "answer"), [((2, 0), [[], []]), ((1, 3, 0), [[]])])
def test_rows_of_nothing_have_no_classes(shape: tuple[int, ...], answer: Any) -> None:
    assert classes(np.zeros(shape), "FP32", 3) == answer


@given(arrays.arrays(np.int16, st.tuples(st.integers(1, 4), st.integers(1, 9))), st.integers(1, 12))
def test_classes_are_what_sorting_says(values: Any, count: int) -> None:
    expected = [
        [f"{row[i]}:{i}" for i in sorted(range(len(row)), key=lambda i, row=row: (-int(row[i]), i))[:count]]
        for row in values
    ]
    assert classes(values, "INT16", count) == expected
