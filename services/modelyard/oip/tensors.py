"""Between the protocol's tensors and NumPy arrays.

Raw contents become arrays that share their memory; they are read-only. Every function raises `TensorError` with what
was expected and what came, and never reads or allocates more than the message itself justifies.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import open_inference_pb2 as pb
from .datatypes import DATATYPES, Datatype, datatype_named, datatype_of, from_bfloat16
from .errors import TensorError

Array = NDArray[Any]

_LENGTH = struct.Struct("<I")
_CONTENTS_FIELDS = tuple(pb.InferTensorContents.DESCRIPTOR.fields_by_name)


def element_count(shape: Sequence[int]) -> int:
    """How many elements a tensor of this shape has. Raises TensorError for a negative dimension."""
    if min(shape, default=0) < 0:
        raise TensorError(f"expected a shape without negative dimensions; got {format_shape(shape)}")
    return math.prod(shape)


def decode_raw(raw: bytes, datatype: Datatype, shape: Sequence[int]) -> Array:
    """The array in raw contents: little-endian, row-major; BYTES as objects that are `bytes`."""
    count = element_count(shape)
    if not datatype.itemsize:
        return _shaped(_split(raw, count), shape)
    if len(raw) != count * datatype.itemsize:
        raise TensorError(
            f"expected {count * datatype.itemsize} bytes for {datatype.name} {format_shape(shape)}; got {len(raw)}"
        )
    if datatype.name == "BOOL" and raw.strip(b"\0\1"):
        _check_booleans(raw)
    return _shaped(np.frombuffer(raw, dtype=datatype.dtype), shape)


def decode_contents(contents: pb.InferTensorContents, datatype: Datatype, shape: Sequence[int]) -> Array:
    """The array in typed contents."""
    count = element_count(shape)
    if datatype.contents is None:
        raise TensorError(f"expected raw contents for {datatype.name}, which has no typed ones")
    foreign = [field for field in _CONTENTS_FIELDS if field != datatype.contents and len(getattr(contents, field))]
    if foreign:
        raise TensorError(f"expected {datatype.contents} for {datatype.name}; got {', '.join(foreign)}")
    elements = getattr(contents, datatype.contents)
    if len(elements) != count:
        raise TensorError(f"expected {count} elements for shape {format_shape(shape)}; got {len(elements)}")
    return _shaped(_typed(elements, datatype, count), shape)


def encode_raw(array: Array, datatype: Datatype) -> bytes:
    """The raw contents of an array. BYTES takes `bytes` and text, which travels as UTF-8."""
    if not datatype.itemsize:
        return _join(array)
    return np.ascontiguousarray(array, dtype=datatype.dtype).tobytes()


def add_input(request: pb.ModelInferRequest, name: str, array: Array, datatype: str = "") -> None:
    """Appends an input with raw contents. `datatype` is needed for BF16 only, whose bits are a uint16 array."""
    kind = datatype_named(datatype) if datatype else datatype_of(array)
    request.inputs.add(name=name, datatype=kind.name, shape=array.shape)
    request.raw_input_contents.append(encode_raw(array, kind))


def output_arrays(response: pb.ModelInferResponse) -> dict[str, Array]:
    """Every output of an answer by name, from raw contents or from typed ones if those were sent. BF16 as float32."""
    if response.raw_output_contents and len(response.raw_output_contents) != len(response.outputs):
        raise TensorError(
            f"expected {len(response.outputs)} raw contents, one for each output; "
            f"got {len(response.raw_output_contents)}"
        )
    return {output.name: _output_array(response, index) for index, output in enumerate(response.outputs)}


def format_shape(shape: Sequence[int]) -> str:
    """A shape for a message, cut if it is long."""
    shown = ", ".join(str(size) for size in shape[:16])
    return f"[{shown}{', …' if len(shape) > 16 else ''}]"


def _output_array(response: pb.ModelInferResponse, index: int) -> Array:
    output = response.outputs[index]
    datatype = datatype_named(output.datatype)
    if response.raw_output_contents:
        array = decode_raw(response.raw_output_contents[index], datatype, output.shape)
    else:
        array = decode_contents(output.contents, datatype, output.shape)
    return from_bfloat16(array) if datatype.name == "BF16" else array


def _shaped(elements: Array, shape: Sequence[int]) -> Array:
    try:
        return elements.reshape(tuple(shape))
    except (ValueError, OverflowError):
        # Too many dimensions, or, beside a dimension of 0, one that no machine has.
        raise TensorError(f"no array can have the shape {format_shape(shape)}") from None


def _check_booleans(raw: bytes) -> None:
    wrong = np.flatnonzero(np.frombuffer(raw, np.uint8) > 1)
    raise TensorError(f"expected 0 or 1 in every byte of a BOOL; element {wrong[0]} is {raw[wrong[0]]}")


def _split(raw: bytes, count: int) -> Array:
    """The elements of BYTES: each behind its length."""
    size = len(raw)
    if size < count * _LENGTH.size:
        raise TensorError(f"expected {count} BYTES elements, each behind a length of 4 bytes; got {size} bytes in all")
    elements = np.empty(count, dtype=object)
    end = 0
    for index in range(count):
        start = end + _LENGTH.size
        if start > size:
            raise TensorError(f"expected {count} BYTES elements; the contents end at element {index}")
        end = start + _LENGTH.unpack_from(raw, end)[0]
        if end > size:
            raise TensorError(f"expected {end - start} bytes in BYTES element {index}; {size - start} are left")
        elements[index] = raw[start:end]
    if end != size:
        raise TensorError(f"expected {count} BYTES elements in {end} bytes; got {size} bytes")
    return elements


def _join(array: Array) -> bytes:
    pieces: list[bytes] = []
    for element in array.ravel():
        data = element.encode() if isinstance(element, str) else element
        if not isinstance(data, bytes):
            raise TensorError(f"expected bytes or text in every element of BYTES; got {type(data).__name__}")
        pieces += (_LENGTH.pack(len(data)), data)
    return b"".join(pieces)


def _typed(elements: Any, datatype: Datatype, count: int) -> Array:
    """Typed contents as an array; the narrow integers travel in 32 bits and must fit."""
    if datatype.name == "BYTES":
        array = np.empty(count, dtype=object)
        array[:] = list(elements)
        return array
    if datatype.dtype.kind not in "iu" or datatype.itemsize >= DATATYPES["INT32"].itemsize:
        return np.fromiter(elements, dtype=datatype.dtype, count=count)
    wide = np.fromiter(elements, dtype=np.int64, count=count)
    limits = np.iinfo(datatype.dtype)
    wrong = np.flatnonzero((wide < limits.min) | (wide > limits.max))
    if wrong.size:
        raise TensorError(
            f"expected {limits.min} to {limits.max} for {datatype.name}; element {wrong[0]} is {wide[wrong[0]]}"
        )
    return wide.astype(datatype.dtype)
