"""Graphs whose weights are in a file beside them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from . import graphs

LOCATION = "weights.bin"


def external(factor: float = 2, size: int = 4, **entries: str) -> tuple[bytes, bytes]:
    """y = factor * x, float, [batch, size], and the file with the factors; `entries` override where they should be.

    An entry that is empty is left out.
    """
    floats = (TensorProto.FLOAT, ("batch", size))
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    model = onnx.load_from_string(graphs.graph([node], {"x": floats}, {"y": floats}, {"w": np.zeros(size, np.float32)}))
    data = np.full(size, factor, np.float32).tobytes()
    place(model.graph.initializer[0], {"location": LOCATION, "offset": "0", "length": str(len(data)), **entries})
    return model.SerializeToString(), data


def place(tensor: TensorProto, entries: dict[str, str]) -> None:
    """Says that the tensor's bytes are elsewhere."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        if value:
            tensor.external_data.add(key=key, value=value)
