"""The reference models as ONNX files. The one module of this package that needs `onnx`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from modelyard.conformance.reference import ADD, MODELS, UNBATCHED, ReferenceModel, ReferenceTensor

OPSET: Final = 18
IR_VERSION: Final = 9
"""Old enough for every runtime of the last years."""

_ELEMENT_TYPES: Final[dict[str, int]] = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}


def reference_graph(model: ReferenceModel) -> bytes:
    """The ONNX file of a reference model; the same bytes every time."""
    body = helper.make_graph(
        _nodes(model), model.full_name, [_value(tensor) for tensor in model.inputs], [_value(t) for t in model.outputs]
    )
    graph = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(graph)
    return graph.SerializeToString(deterministic=True)


def write_graphs(folder: Path) -> list[Path]:
    """Writes every reference model as `<name>.onnx`; answers the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{model.full_name}.onnx" for model in MODELS]
    for model, file in zip(MODELS, files, strict=True):
        file.write_bytes(reference_graph(model))
    return files


def _nodes(model: ReferenceModel) -> list[NodeProto]:
    if model is ADD:
        return [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    if model is UNBATCHED:
        return [helper.make_node("Add", ["x", "x"], ["y"])]
    return [helper.make_node("Identity", ["x"], ["y"])]


def _value(tensor: ReferenceTensor) -> ValueInfoProto:
    names = ("batch", "columns")
    # Free dimensions go by names, so that runtimes know that input and output agree in them.
    shape = [size if size >= 0 else names[index] for index, size in enumerate(tensor.shape)]
    return helper.make_tensor_value_info(tensor.name, _ELEMENT_TYPES[tensor.datatype], shape)
