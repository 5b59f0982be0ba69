"""What goes into an ONNX model and what comes out, as servers that must be told want to be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

_DATATYPES: dict[int, str] = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "BYTES",
}


@dataclass(frozen=True)
class Tensor:
    """An input or output."""

    name: str
    datatype: str
    """As the Open Inference Protocol calls it."""
    shape: tuple[int, ...]
    """-1: any size."""


@dataclass(frozen=True)
class Signature:
    """All inputs and outputs, in the graph's order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def batches(self) -> bool:
        """Whether every tensor's first dimension is free, so that it can be the batch."""
        return all(tensor.shape and tensor.shape[0] == -1 for tensor in self.inputs + self.outputs)


def read(model: Path) -> Signature:
    """The signature of an ONNX file. Weights in other files are not read."""
    graph = onnx.load(str(model), load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return Signature(
        tuple(_tensor(value) for value in graph.input if value.name not in constants),
        tuple(_tensor(value) for value in graph.output),
    )


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim)
    return Tensor(value.name, _DATATYPES[kind.elem_type], shape)
