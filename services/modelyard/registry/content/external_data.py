"""Tensors whose bytes are in another file: allowed is exactly one file, named beforehand, with every byte in place.

The file itself is not read here; its digest is its check. What must not pass is a tensor that points anywhere else.
"""

from __future__ import annotations

from math import prod

from onnx import ModelProto, TensorProto, helper

from modelyard.core.errors import MalformedContent
from modelyard.core.names import shorten

from .limits import ExternalFile
from .tensor_types import ELEMENT_BITS, quoted

_KEYS = frozenset({"location", "offset", "length", "checksum"})
_MOST_DIGITS = 18


def check_external(tensor: TensorProto, file: ExternalFile) -> None:
    """Raises MalformedContent unless the tensor's bytes are in `file`, as many as its shape says."""
    name = quoted(tensor.name)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) != len(tensor.external_data) or not entries.keys() <= _KEYS:
        raise MalformedContent(f"the tensor {name} is in another file in a way that is not known: {sorted(entries)}")
    if entries.get("location") != file.location:
        raise MalformedContent(
            f"the tensor {name} is in the file {shorten(entries.get('location', ''))!r}; allowed is {file.location!r}"
        )
    bits = ELEMENT_BITS.get(tensor.data_type)
    if bits is None or any(size < 0 for size in tensor.dims):
        raise MalformedContent(f"the tensor {name} of shape {list(tensor.dims)} cannot be in another file")
    needed = (prod(tensor.dims) * bits + 7) // 8
    offset, length = _number(entries, "offset", 0), _number(entries, "length", needed)
    if length != needed or offset + length > file.size_bytes:
        raise MalformedContent(
            f"the tensor {name} of shape {list(tensor.dims)} needs {needed} bytes; it is {length} bytes at {offset} of "
            f"a file of {file.size_bytes}"
        )
    if tensor.raw_data:
        raise MalformedContent(f"the tensor {name} is in two files at once")


def without_external(model: ModelProto) -> ModelProto:
    """The same graph with those tensors as inputs: all that ONNX's checker can look at without the file."""
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    outside = [tensor for tensor in graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    declared = {value.name for value in graph.input}
    for tensor in outside:
        if tensor.name not in declared:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        graph.initializer.remove(tensor)
    return copy


def _number(entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key, str(default))
    if not text.isascii() or not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise MalformedContent(
            f"the {key} of a tensor in another file is {shorten(text)!r}; expected a number of bytes"
        )
    return int(text)
