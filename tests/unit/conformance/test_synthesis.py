"""Valid tensors for any signature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.conformance.subject import Subject
from modelyard.conformance.synthesis import Plan
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES
from modelyard.oip.tensors import decode_contents, decode_raw

Tensor = pb.ModelMetadataResponse.TensorMetadata


def subject(*inputs: Tensor, plan: Plan | None = None) -> Subject:
    metadata = pb.ModelMetadataResponse(
        name="m", inputs=inputs, outputs=[Tensor(name="y", datatype="FP32", shape=[-1])]
    )
    found = Subject.read("m", "", metadata.SerializeToString(), plan or Plan())
    assert found is not None
    return found


@given(
    datatype=st.sampled_from(sorted(DATATYPES)),
    shape=st.lists(st.integers(-1, 3), max_size=4),
    rows=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_both_forms_are_valid_and_the_same(datatype: str, shape: list[int], rows: int, seed: int) -> None:
    kind = DATATYPES[datatype]
    tensor = Plan().tensor(Tensor(name="x", datatype=datatype, shape=shape), rows, seed)
    assert len(tensor.array.shape) == len(shape)
    assert all(wanted in (-1, size) for wanted, size in zip(shape, tensor.array.shape, strict=True))
    if shape and shape[0] == -1:
        assert tensor.array.shape[0] == rows
    raw = decode_raw(tensor.raw, kind, tensor.array.shape)
    assert np.array_equal(raw, tensor.array)
    if kind.contents:
        assert np.array_equal(decode_contents(tensor.typed(), kind, tensor.array.shape), raw)


def test_free_dimensions_are_as_told() -> None:
    plan = Plan({"x": 5, "x.2": 7, "z.0": 3})
    cube = Tensor(name="x", datatype="FP32", shape=[-1, -1, -1, 4])
    line = Tensor(name="z", datatype="INT64", shape=[-1])
    shape = [tensor.array.shape for tensor in subject(cube, line, plan=plan).tensors(rows=2)]
    assert shape == [(2, 5, 7, 4), (3,)]


def test_inputs_differ_so_that_mixed_up_ones_show() -> None:
    first, second = subject(
        Tensor(name="a", datatype="FP32", shape=[-1, 2]), Tensor(name="b", datatype="FP32", shape=[-1, 2])
    ).tensors()
    assert first.raw != second.raw


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_given_arrays_are_cut_or_repeated_to_the_rows(rows: int) -> None:
    given_array: Any = np.arange(6).reshape(3, 2)
    (tensor,) = subject(Tensor(name="x", datatype="FP32", shape=[-1, 2]), plan=Plan(arrays={"x": given_array})).tensors(
        rows=rows
    )
    assert tensor.array.dtype == np.float32
    assert tensor.array.tolist() == [given_array[row % 3].tolist() for row in range(rows)]


@pytest.mark.parametrize("datatype", ["float32", ""])
def test_metadata_that_names_no_datatype_makes_no_subject(datatype: str) -> None:
    metadata = pb.ModelMetadataResponse(inputs=[Tensor(name="x", datatype=datatype)])
    assert Subject.read("m", "", metadata.SerializeToString(), Plan()) is None
    assert Subject.read("m", "", b"\xff", Plan()) is None
