"""Reads the signature of an ONNX file, after making sure that the file is one that may be served.

External data is never read: the graph is parsed from one buffer, and a tensor that points elsewhere is refused. What is
refused here would fail in the inference pods, after the alias has moved, or do worse there.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, ValueInfoProto

from modelyard.core.errors import MalformedContent, TooLarge
from modelyard.core.names import shorten

from .external_data import without_external
from .graph_walk import DEFAULT_DOMAIN, check_graph
from .limits import MAX_NAME_LENGTH, GraphLimits
from .messages import GraphFacts, TensorFacts
from .tensor_types import quoted

_MAX_PROTOBUF_BYTES = 2**31 - 1

_DATA_TYPES: dict[int, str] = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8", TensorProto.UINT16: "UINT16", TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64", TensorProto.INT8: "INT8", TensorProto.INT16: "INT16", TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64", TensorProto.FLOAT16: "FP16", TensorProto.FLOAT: "FP32", TensorProto.DOUBLE: "FP64",
    TensorProto.BFLOAT16: "BF16", TensorProto.STRING: "BYTES",
}  # fmt: skip


def read_graph(path: Path, limits: GraphLimits) -> GraphFacts:
    """Reads and checks the file; raises MalformedContent with the reason, TooLarge above protobuf's 2 GiB."""
    size = path.stat().st_size
    if size > _MAX_PROTOBUF_BYTES:
        raise TooLarge(
            f"an ONNX file has at most {_MAX_PROTOBUF_BYTES} bytes, this one has {size}",
            metadata={"limit_bytes": str(_MAX_PROTOBUF_BYTES)},
        )
    content = path.read_bytes()
    model = _parse(content)
    _check_versions(model, limits)
    check_graph(model, limits)
    facts = GraphFacts(_inputs(model, limits), _outputs(model, limits), _opset(model), model.ir_version)
    _check_by_onnx(content if limits.external is None else without_external(model).SerializeToString())
    return facts


def _parse(content: bytes) -> ModelProto:
    try:
        model = ModelProto.FromString(content)
    except (DecodeError, RecursionError) as error:
        raise MalformedContent("not a whole ONNX file: it cannot be parsed (truncated, or another format)") from error
    if not model.HasField("graph") or not model.graph.node:
        raise MalformedContent("not an ONNX file: it holds no graph")
    return model


def _check_versions(model: ModelProto, limits: GraphLimits) -> None:
    if not limits.min_ir_version <= model.ir_version <= limits.max_ir_version:
        raise MalformedContent(
            f"IR version {model.ir_version}; the runtime loads {limits.min_ir_version} to {limits.max_ir_version}"
        )
    versions: dict[str, int] = {}
    for imported in model.opset_import:
        domain = imported.domain or DEFAULT_DOMAIN
        if domain in versions:
            raise MalformedContent(f"the operator set {quoted(domain)} is imported twice")
        versions[domain] = imported.version
    ranges = {
        DEFAULT_DOMAIN: (limits.min_opset, limits.max_opset),
        "ai.onnx.ml": (1, limits.max_ml_opset),
    }
    if DEFAULT_DOMAIN not in versions:
        raise MalformedContent("the default operator set is not imported")
    for domain, (least, most) in ranges.items():
        if not least <= versions.get(domain, least) <= most:
            raise MalformedContent(
                f"version {versions[domain]} of the operator set {domain}; the runtime loads {least} to {most}"
            )


def _opset(model: ModelProto) -> int:
    return next(entry.version for entry in model.opset_import if (entry.domain or DEFAULT_DOMAIN) == DEFAULT_DOMAIN)


def _inputs(model: ModelProto, limits: GraphLimits) -> tuple[TensorFacts, ...]:
    """The inputs that a caller gives: those without an initializer."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants.update(tensor.values.name for tensor in model.graph.sparse_initializer)
    declared = [value for value in model.graph.input if value.name not in constants]
    if not declared:
        raise MalformedContent("the graph has no inputs")
    return _tensors(declared, "input", limits)


def _outputs(model: ModelProto, limits: GraphLimits) -> tuple[TensorFacts, ...]:
    if not model.graph.output:
        raise MalformedContent("the graph has no outputs")
    return _tensors(list(model.graph.output), "output", limits)


def _tensors(values: list[ValueInfoProto], role: str, limits: GraphLimits) -> tuple[TensorFacts, ...]:
    if len(values) > limits.max_tensors:
        raise MalformedContent(f"the graph has {len(values)} {role}s, at most {limits.max_tensors} are allowed")
    tensors = tuple(_tensor(value, role) for value in values)
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise MalformedContent(f"two {role}s of the graph have the same name")
    return tensors


def _tensor(value: ValueInfoProto, role: str) -> TensorFacts:
    name: object = value.name  # protobuf hands out bytes where a string of the file is not UTF-8
    if not isinstance(name, str) or not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise MalformedContent(
            f"an {role} is named {quoted(name)}; expected 1 to {MAX_NAME_LENGTH} printable characters"
        )
    if not value.type.HasField("tensor_type"):
        kind = value.type.WhichOneof("value") or "of no type"
        raise MalformedContent(f"the {role} {shorten(name)!r} is {kind}; only tensors can be served")
    tensor = value.type.tensor_type
    if tensor.elem_type not in _DATA_TYPES:
        raise MalformedContent(f"the {role} {shorten(name)!r} has elements of type {_type_name(tensor.elem_type)}")
    if not tensor.HasField("shape"):
        raise MalformedContent(f"the {role} {shorten(name)!r} has no shape; declare one, with names where sizes vary")
    return TensorFacts(name, _DATA_TYPES[tensor.elem_type], tuple(_size(name, d) for d in tensor.shape.dim))


def _size(name: str, dimension: onnx.TensorShapeProto.Dimension) -> int:
    if not dimension.HasField("dim_value"):
        return -1
    if dimension.dim_value < 0:
        raise MalformedContent(f"{shorten(name)!r} has the negative dimension {dimension.dim_value}")
    return dimension.dim_value


def _type_name(elem_type: int) -> str:
    names = {number: name for name, number in TensorProto.DataType.items()}
    return names.get(elem_type, str(elem_type))


def _check_by_onnx(content: bytes) -> None:
    """ONNX's own checks on top: operators and their attributes, single assignment, order, types and shapes."""
    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise MalformedContent(f"not a valid ONNX graph: {shorten(' '.join(str(error).split()), 500)}") from error
    except (RuntimeError, ValueError, TypeError) as error:
        raise MalformedContent(f"the ONNX graph cannot be checked: {shorten(str(error), 300)}") from error
