"""Whether this pod's ONNX Runtime can load a version at all, found out before anything is downloaded.

The runtime has no call that says which operator sets and file formats it takes. So it is asked with the smallest graph
there is, marked with the version's numbers: one Identity node, written down in protobuf's wire format (the pod needs no
onnx package).
"""

from __future__ import annotations

from functools import cache

import onnxruntime as ort

from modelyard.core.errors import MalformedContent

from .sessions import LOAD_ERRORS, brief


def check_runtime_supports(opset_version: int, ir_version: int) -> None:
    """Raises MalformedContent, with the runtime's words, if it takes no graph of this operator set and file format."""
    refusal = _refusal(opset_version, ir_version)
    if refusal:
        raise MalformedContent(
            f"the graph has operator set {opset_version} and file format {ir_version}; "
            f"ONNX Runtime {ort.__version__} refuses them: {refusal}"
        )


@cache
def _refusal(opset_version: int, ir_version: int) -> str:
    """Why the runtime refuses, empty if it does not. Few pairs exist, and the answer never changes in a process."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(smallest_graph(opset_version, ir_version), options, ["CPUExecutionProvider"])
    except LOAD_ERRORS as error:
        return brief(error)
    return ""


def smallest_graph(opset_version: int, ir_version: int) -> bytes:
    """An ONNX ModelProto: y = Identity(x), one float each. Field numbers: onnx.proto of the ONNX specification."""
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
