"""Small ONNX graphs, good and bad."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper


def linear_model(weight: float = 2.0, *, opset: int = 20, ir_version: int = 10, **replaced: Any) -> ModelProto:
    """`y = x + weight` on two columns and any batch; `replaced` overrides parts of the graph."""
    parts: dict[str, Any] = {
        "nodes": [helper.make_node("Add", ["x", "w"], ["y"], name="add")],
        "name": "linear",
        "inputs": [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        "outputs": [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        "initializer": [helper.make_tensor("w", TensorProto.FLOAT, [2], [weight, weight])],
        **replaced,
    }
    graph = helper.make_graph(**parts)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def onnx_bytes(weight: float = 2.0, **options: Any) -> bytes:
    """The same, serialized: another weight is another digest."""
    return linear_model(weight, **options).SerializeToString()


def nested_if(depth: int) -> NodeProto:
    """An If whose branches hold an If, and so on."""
    inner = helper.make_node("Identity", ["x"], ["z"]) if depth <= 1 else nested_if(depth - 1)
    output = helper.make_tensor_value_info(inner.output[0], TensorProto.FLOAT, None)
    branch = helper.make_graph([inner], f"branch{depth}", [], [output])
    return helper.make_node("If", ["c"], [f"y{depth}"], then_branch=branch, else_branch=branch)


__all__ = ["linear_model", "nested_if", "onnx", "onnx_bytes"]
