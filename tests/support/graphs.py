"""Small ONNX graphs, and what a registry would record of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelyard.v1 import model_pb2, tensor_pb2

Shape = Sequence[int | str]

OPSET = 20
IR = 10

_DATA_TYPES = {
    TensorProto.BOOL: tensor_pb2.DATA_TYPE_BOOL,
    TensorProto.UINT8: tensor_pb2.DATA_TYPE_UINT8,
    TensorProto.UINT16: tensor_pb2.DATA_TYPE_UINT16,
    TensorProto.UINT32: tensor_pb2.DATA_TYPE_UINT32,
    TensorProto.UINT64: tensor_pb2.DATA_TYPE_UINT64,
    TensorProto.INT8: tensor_pb2.DATA_TYPE_INT8,
    TensorProto.INT16: tensor_pb2.DATA_TYPE_INT16,
    TensorProto.INT32: tensor_pb2.DATA_TYPE_INT32,
    TensorProto.INT64: tensor_pb2.DATA_TYPE_INT64,
    TensorProto.FLOAT16: tensor_pb2.DATA_TYPE_FP16,
    TensorProto.FLOAT: tensor_pb2.DATA_TYPE_FP32,
    TensorProto.DOUBLE: tensor_pb2.DATA_TYPE_FP64,
    TensorProto.BFLOAT16: tensor_pb2.DATA_TYPE_BF16,
    TensorProto.STRING: tensor_pb2.DATA_TYPE_BYTES,
}


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Shape]],
    outputs: Mapping[str, tuple[int, Shape]],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = OPSET,
    ir: int = IR,
) -> bytes:
    """An ONNX file. Inputs and outputs: element type (`TensorProto.FLOAT`) and shape, text for a free dimension."""
    body = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, *info) for name, info in inputs.items()],
        [helper.make_tensor_value_info(name, *info) for name, info in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    return model.SerializeToString()


def scale(factor: float, features: int = 2) -> bytes:
    """y = factor * x, float, [batch, features]: a version that says by its answers which one it is."""
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    shape = ("batch", features)
    floats = (TensorProto.FLOAT, shape)
    return graph([node], {"x": floats}, {"y": floats}, {"factor": np.float32(factor)})


def weighty(factor: float, weights: int) -> bytes:
    """y = factor * x, float, [batch, 1], in a file with so many floats more that do nothing."""
    floats = (TensorProto.FLOAT, ("batch", 1))
    constants = {"factor": np.float32(factor), "ballast": np.zeros(weights, np.float32)}
    return graph([helper.make_node("Mul", ["x", "factor"], ["y"])], {"x": floats}, {"y": floats}, constants)


def identity(element_type: int, shape: Shape = ("batch", 2)) -> bytes:
    """y = x for any element type."""
    return graph(
        [helper.make_node("Identity", ["x"], ["y"])], {"x": (element_type, shape)}, {"y": (element_type, shape)}
    )


def slow(size: int = 700) -> bytes:
    """A float vector [batch, size] through some large matrix products: tens of milliseconds of work."""
    nodes = [helper.make_node("MatMul", ["x" if not i else f"h{i}", "w"], [f"h{i + 1}"]) for i in range(40)]
    nodes.append(helper.make_node("Identity", ["h40"], ["y"]))
    floats = (TensorProto.FLOAT, ("batch", size))
    return graph(nodes, {"x": floats}, {"y": floats}, {"w": np.eye(size, dtype=np.float32)})


def only_batch_one() -> bytes:
    """Declares a free batch, and computes with one row only, as graphs traced at batch 1 do."""
    floats = (TensorProto.FLOAT, ("batch", 2))
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    return graph([node], {"x": floats}, {"y": floats}, {"shape": np.array([1, 2])})


def describe(content: bytes) -> model_pb2.ModelVersion:
    """What a registry reads from an ONNX file."""
    model = onnx.ModelProto.FromString(content)
    return model_pb2.ModelVersion(
        inputs=map(_tensor, model.graph.input),
        outputs=map(_tensor, model.graph.output),
        opset_version=model.opset_import[0].version,
        ir_version=model.ir_version,
    )


def _tensor(info: onnx.ValueInfoProto) -> tensor_pb2.TensorSpec:
    kind = info.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim]
    return tensor_pb2.TensorSpec(name=info.name, data_type=_DATA_TYPES[kind.elem_type], shape=shape)


def lookup(values: Sequence[float] = (10, 20, 30)) -> bytes:
    """y = values[x] for integers [batch, 1]: fails for the whole batch if one index is out of range."""
    node = helper.make_node("Gather", ["values", "x"], ["y"])
    integers, floats = (TensorProto.INT64, ("batch", 1)), (TensorProto.FLOAT, ("batch", 1))
    return graph([node], {"x": integers}, {"y": floats}, {"values": np.array(values, np.float32)})


def counting() -> bytes:
    """y = the first element of x, for integers [batch, 1], after so many rounds of a loop: 2^62 do not end."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["goes_on"]), helper.make_node("Add", ["sum", "one"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.INT64, []),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.INT64, []),
        ],
        [numpy_helper.from_array(np.array(1, np.int64), "one")],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["rounds"], keepdims=0),
        helper.make_node("Loop", ["rounds", "", "zero"], ["counted"], body=body),
        helper.make_node("Sub", ["counted", "rounds"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    integers = (TensorProto.INT64, ("batch", 1))
    return graph(nodes, {"x": integers}, {"y": integers}, {"zero": np.array(0, np.int64)})
