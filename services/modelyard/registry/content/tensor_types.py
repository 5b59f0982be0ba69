"""How ONNX stores the elements of a tensor, by their type."""

from __future__ import annotations

from onnx import TensorProto

from modelyard.core.names import shorten

_Type = TensorProto
ELEMENT_BITS: dict[int, int] = {
    _Type.FLOAT: 32, _Type.UINT8: 8, _Type.INT8: 8, _Type.UINT16: 16, _Type.INT16: 16, _Type.INT32: 32,
    _Type.INT64: 64, _Type.BOOL: 8, _Type.FLOAT16: 16, _Type.DOUBLE: 64, _Type.UINT32: 32, _Type.UINT64: 64,
    _Type.COMPLEX64: 64, _Type.COMPLEX128: 128, _Type.BFLOAT16: 16, _Type.FLOAT8E4M3FN: 8,
    _Type.FLOAT8E4M3FNUZ: 8, _Type.FLOAT8E5M2: 8, _Type.FLOAT8E5M2FNUZ: 8, _Type.UINT4: 4, _Type.INT4: 4,
}  # fmt: skip
"""Bits of one element in `raw_data`. Types that came into ONNX later are left to onnx.checker."""

VALUE_FIELDS: dict[int, str] = {
    _Type.FLOAT: "float_data", _Type.DOUBLE: "double_data", _Type.STRING: "string_data", _Type.INT64: "int64_data",
    _Type.UINT64: "uint64_data", _Type.UINT32: "uint64_data",
    **dict.fromkeys(
        (_Type.INT32, _Type.INT16, _Type.INT8, _Type.UINT16, _Type.UINT8, _Type.BOOL, _Type.FLOAT16, _Type.BFLOAT16),
        "int32_data",
    ),
}  # fmt: skip
"""The field that holds the elements one by one where there is no `raw_data`."""


def quoted(name: object) -> str:
    """A name for a message. Protobuf hands out bytes where a string of the file is not UTF-8."""
    return repr(shorten(name) if isinstance(name, str) else shorten(str(name)))
