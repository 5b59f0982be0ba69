"""Graphs that every check of their form lets through, and that do harm when they compute.

All take `x`, float [batch, 1], and give `y` of the same shape. With 0 they are harmless until a caller sends a large x.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from . import graphs

_FLOATS = (TensorProto.FLOAT, ("batch", 1))


def allocating(elements: float = 0) -> bytes:
    """Fills a vector with `elements` + max(x) ones and adds their sum to x."""
    nodes = [
        *_amount(),
        helper.make_node("Reshape", ["n", "one"], ["shape"]),
        helper.make_node(
            "ConstantOfShape", ["shape"], ["ones"], value=helper.make_tensor("", TensorProto.FLOAT, [1], [1])
        ),
        helper.make_node("ReduceSum", ["ones"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    constants = {"base": np.float32(elements), "one": np.array([1])}
    return graphs.graph(nodes, {"x": _FLOATS}, {"y": _FLOATS}, constants)


def looping(rounds: float = 0) -> bytes:
    """Doubles x `rounds` + max(x) times."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["v", "v"], ["doubled"])],
        "body",
        [_value("i", TensorProto.INT64, []), _value("go", TensorProto.BOOL, []), _value("v", TensorProto.FLOAT, None)],
        [_value("go_on", TensorProto.BOOL, []), _value("doubled", TensorProto.FLOAT, None)],
    )
    nodes = [*_amount(), helper.make_node("Loop", ["n", "true", "x"], ["y"], body=body)]
    constants = {"base": np.float32(rounds), "true": np.array(True)}
    return graphs.graph(nodes, {"x": _FLOATS}, {"y": _FLOATS}, constants)


def _amount() -> list[onnx.NodeProto]:
    """n = int(base + max(x))."""
    return [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Add", ["base", "most"], ["amount"]),
        helper.make_node("Cast", ["amount"], ["n"], to=TensorProto.INT64),
    ]


def _value(name: str, element_type: int, shape: list[int] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type, shape)
