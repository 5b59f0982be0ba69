"""Tensors to bytes and back, and what is said of those that are not what they claim."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES, datatype_named, datatype_of, from_bfloat16, to_bfloat16
from modelyard.oip.errors import TensorError
from modelyard.oip.tensors import add_input, decode_contents, decode_raw, encode_raw, output_arrays

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
FIXED = [datatype for datatype in DATATYPES.values() if datatype.itemsize]
TYPED = [datatype for datatype in DATATYPES.values() if datatype.contents]


def arrays(dtype: np.dtype[Any]) -> st.SearchStrategy[Any]:
    return hnp.arrays(dtype, SHAPES, elements=st.binary(max_size=20) if dtype.kind == "O" else None)


def typed_contents(array: Any, field: str) -> pb.InferTensorContents:
    contents = pb.InferTensorContents()
    getattr(contents, field).extend(array.ravel().tolist())
    return contents


@given(st.data(), st.sampled_from(list(DATATYPES.values())))
def test_raw_contents_give_back_what_went_in(data: st.DataObject, datatype: Any) -> None:
    array = data.draw(arrays(datatype.dtype))
    decoded = decode_raw(encode_raw(array, datatype), datatype, array.shape)
    assert decoded.dtype == datatype.dtype
    np.testing.assert_array_equal(decoded, array)


@given(st.data(), st.sampled_from(TYPED))
def test_typed_contents_give_back_what_went_in(data: st.DataObject, datatype: Any) -> None:
    array = data.draw(arrays(datatype.dtype))
    assert datatype.contents
    decoded = decode_contents(typed_contents(array, datatype.contents), datatype, array.shape)
    assert decoded.dtype == datatype.dtype
    np.testing.assert_array_equal(decoded, array)


def test_raw_contents_are_not_copied() -> None:
    raw = np.arange(6, dtype="<f4").tobytes()
    array = decode_raw(raw, DATATYPES["FP32"], [2, 3])
    assert np.shares_memory(array, np.frombuffer(raw, np.uint8))


def test_raw_bytes_on_the_wire_are_little_endian_and_row_major() -> None:
    array = np.asfortranarray(np.array([[1, 2], [3, 4]], dtype=">i2"))
    assert encode_raw(array, DATATYPES["INT16"]) == bytes([1, 0, 2, 0, 3, 0, 4, 0])
    assert encode_raw(np.array(["é", b"\xff"], dtype=object), DATATYPES["BYTES"]) == b"\2\0\0\0\xc3\xa9\1\0\0\0\xff"


@given(st.sampled_from(FIXED), hnp.array_shapes(max_dims=3, max_side=4), st.integers(-3, 3).filter(bool))
def test_a_raw_length_that_does_not_fit_names_both_lengths(datatype: Any, shape: Any, off: int) -> None:
    size = datatype.itemsize * int(np.prod(shape))
    raw = bytes(max(0, size + off))
    with pytest.raises(TensorError, match=f"expected {size} bytes .*; got {len(raw)}$"):
        decode_raw(raw, datatype, shape)


@given(st.binary(max_size=60), st.lists(st.integers(-2, 2**62), max_size=5))
def test_any_bytes_and_shape_decode_or_are_refused(raw: bytes, shape: list[int]) -> None:
    for datatype in DATATYPES.values():
        try:
            array = decode_raw(raw, datatype, shape)
        except TensorError:
            continue
        assert list(array.shape) == shape


@pytest.mark.parametrize(
    ("raw", "count", "text"),
    [
        (b"", 1, "each behind a length of 4 bytes; got 0 bytes"),
        (struct.pack("<I", 5) + b"abc", 1, "expected 5 bytes in BYTES element 0; 3 are left"),
        (struct.pack("<I", 2**32 - 1) + b"abc", 1, "expected 4294967295 bytes in BYTES element 0; 3 are left"),
        (struct.pack("<I", 3) + b"abcd", 1, "expected 1 BYTES elements in 7 bytes; got 8 bytes"),
        (struct.pack("<I", 4) + b"abcd", 2, "expected 2 BYTES elements; the contents end at element 1"),
        (b"\0\0\0\0", 2**61, "got 4 bytes in all"),
    ],
)
def test_broken_bytes_elements_are_refused_by_element(raw: bytes, count: int, text: str) -> None:
    with pytest.raises(TensorError, match=text):
        decode_raw(raw, DATATYPES["BYTES"], [count])


def test_a_boolean_is_zero_or_one() -> None:
    with pytest.raises(TensorError, match="element 2 is 7"):
        decode_raw(b"\0\1\7", DATATYPES["BOOL"], [3])


@pytest.mark.parametrize(
    ("datatype", "contents", "text"),
    [
        ("FP32", pb.InferTensorContents(int_contents=[1, 2]), "expected fp32_contents for FP32; got int_contents"),
        ("FP32", pb.InferTensorContents(fp32_contents=[1]), r"expected 2 elements for shape \[2\]; got 1"),
        ("FP16", pb.InferTensorContents(fp32_contents=[1, 2]), "expected raw contents for FP16"),
        ("BF16", pb.InferTensorContents(), "expected raw contents for BF16"),
        ("INT8", pb.InferTensorContents(int_contents=[1, 200]), "expected -128 to 127 for INT8; element 1 is 200"),
        ("UINT16", pb.InferTensorContents(uint_contents=[70000, 1]), "element 0 is 70000"),
    ],
)
def test_wrong_typed_contents_are_refused(datatype: str, contents: pb.InferTensorContents, text: str) -> None:
    with pytest.raises(TensorError, match=text):
        decode_contents(contents, DATATYPES[datatype], [2])


@pytest.mark.parametrize("shape", [[-1], [2, -3]])
def test_a_negative_dimension_is_refused(shape: list[int]) -> None:
    with pytest.raises(TensorError, match="without negative dimensions"):
        decode_raw(b"", DATATYPES["FP32"], shape)


@pytest.mark.parametrize("shape", [[0, 2**62, 2**62], [0] * 100, [0, 2**63 - 1]])
def test_a_shape_that_no_array_can_have_is_refused(shape: list[int]) -> None:
    with pytest.raises(TensorError, match="no array can have the shape"):
        decode_raw(b"", DATATYPES["FP32"], shape)


@given(hnp.arrays(np.uint16, 50))
def test_bfloat16_values_survive_the_way_through_float32(bits: Any) -> None:
    values = from_bfloat16(bits)
    back = from_bfloat16(to_bfloat16(values))
    np.testing.assert_array_equal(back, values)


def test_bfloat16_rounds_to_nearest_even_and_keeps_special_values() -> None:
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, np.inf, -np.inf, 3.4e38, np.nan], np.float32)
    rounded = from_bfloat16(to_bfloat16(values))
    np.testing.assert_array_equal(rounded[:6], [1.0, 1 + 2**-6, 1 + 2**-7, np.inf, -np.inf, np.inf])
    assert np.isnan(rounded[6])


def test_datatypes_are_found_by_name_and_by_array() -> None:
    assert datatype_of(np.zeros(1, ">f8")).name == "FP64"
    assert datatype_of(np.array(["text"])).name == "BYTES"
    with pytest.raises(TensorError, match="complex128 have no datatype"):
        datatype_of(np.zeros(1, complex))
    with pytest.raises(TensorError, match=r"expected a datatype of BOOL, .*; got 'FLOAT'"):
        datatype_named("FLOAT")


def test_an_element_that_is_neither_bytes_nor_text_is_refused() -> None:
    with pytest.raises(TensorError, match="got int"):
        encode_raw(np.array([b"a", 7], dtype=object), DATATYPES["BYTES"])


def test_an_input_is_written_with_its_shape_and_raw_contents() -> None:
    request = pb.ModelInferRequest()
    add_input(request, "x", np.ones((1, 2), np.float32))
    add_input(request, "b", to_bfloat16(np.ones(3, np.float32)), "BF16")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in request.inputs] == [
        ("x", "FP32", [1, 2]),
        ("b", "BF16", [3]),
    ]
    assert [len(raw) for raw in request.raw_input_contents] == [8, 6]


def test_outputs_are_read_raw_or_typed() -> None:
    output = pb.ModelInferResponse.InferOutputTensor
    raw = pb.ModelInferResponse(
        outputs=[output(name="y", datatype="FP32", shape=[2]), output(name="b", datatype="BF16", shape=[1])],
        raw_output_contents=[np.array([1, 2], "<f4").tobytes(), b"\x80\x3f"],
    )
    typed = pb.ModelInferResponse(outputs=[output(name="y", datatype="INT32", shape=[1])])
    typed.outputs[0].contents.int_contents.append(5)
    assert output_arrays(raw)["y"].tolist() == [1, 2]
    assert output_arrays(raw)["b"].tolist() == [1.0]
    assert output_arrays(typed)["y"].tolist() == [5]
    del raw.raw_output_contents[1]
    with pytest.raises(TensorError, match="expected 2 raw contents, one for each output; got 1"):
        output_arrays(raw)
