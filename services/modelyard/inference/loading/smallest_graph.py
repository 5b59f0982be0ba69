"""The smallest ONNX graph there is, in protobuf's wire format: the pod needs no onnx package to ask the runtime things.

Field numbers: onnx.proto of the ONNX specification.
"""

from __future__ import annotations


def smallest_graph(opset_version: int, ir_version: int) -> bytes:
    """A serialized ModelProto: y = Identity(x), one float each, marked with these versions."""
    shape = _field(1, _field(1, 1))  # TensorShapeProto.dim { dim_value: 1 }
    tensor = _field(1, 1) + _field(2, shape)  # TypeProto.Tensor: elem_type FLOAT, shape
    node = _field(1, b"x") + _field(2, b"y") + _field(4, b"Identity")
    graph = (
        _field(1, node)
        + _field(2, b"g")
        + _field(11, _field(1, b"x") + _field(2, _field(1, tensor)))
        + _field(12, _field(1, b"y") + _field(2, _field(1, tensor)))
    )
    return _field(1, ir_version) + _field(7, graph) + _field(8, _field(2, opset_version))


def _field(number: int, value: int | bytes) -> bytes:
    """One protobuf field: a varint or a length-delimited value."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
