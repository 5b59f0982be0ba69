"""Networks that need no framework: written as ONNX directly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SEED = 20
_OPSET = 20
_IR = 10


def network(path: Path, sizes: Sequence[int]) -> None:
    """Layers with ReLU between them, none after the last: x [batch, sizes[0]] to y [batch, sizes[-1]]."""
    random = np.random.default_rng(SEED)
    nodes, constants, last = [], [], len(sizes) - 2
    for layer, (width, next_width) in enumerate(pairwise(sizes)):
        weight = random.standard_normal((width, next_width), dtype=np.float32) * np.float32((2 / width) ** 0.5)
        bias = random.standard_normal(next_width, dtype=np.float32)
        constants += [numpy_helper.from_array(weight, f"w{layer}"), numpy_helper.from_array(bias, f"b{layer}")]
        before, after = f"h{layer}" if layer else "x", "y" if layer == last else f"z{layer}"
        nodes.append(helper.make_node("Gemm", [before, f"w{layer}", f"b{layer}"], [after]))
        if layer != last:
            nodes.append(helper.make_node("Relu", [after], [f"h{layer + 1}"]))
    _write(path, nodes, constants, sizes[0], sizes[-1])


def line(path: Path, width: int) -> None:
    """y = 2x + 1, [batch, width]: nearly no arithmetic, all transport."""
    nodes = [helper.make_node("Mul", ["x", "two"], ["z"]), helper.make_node("Add", ["z", "one"], ["y"])]
    constants = [
        numpy_helper.from_array(np.array(value, dtype=np.float32), name) for name, value in (("two", 2), ("one", 1))
    ]
    _write(path, nodes, constants, width, width)


def _write(
    path: Path, nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto], width_in: int, width_out: int
) -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width_in])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width_out])]
    graph = helper.make_graph(list(nodes), "benchmark", inputs, outputs, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    path.write_bytes(model.SerializeToString())
