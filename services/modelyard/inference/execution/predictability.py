"""Whether the shapes of a request alone decide what computing it takes.

In most graphs they do: what was measured at load then holds for every request of the same shapes. In a graph where a
*value* of the input becomes a size (ConstantOfShape, Range, Expand …) or a number of rounds (Loop), one request among
thousands may ask for 10^11 elements. Such graphs are kept out of the event loop and compute in memory with a limit.
"""

from __future__ import annotations

from modelyard.inference.loading.graph_file import GraphFile, GraphNode

_SIZE_INPUTS: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,), "Expand": (1,), "Range": (0, 1, 2), "Tile": (1,), "Resize": (1, 2, 3), "Upsample": (1,),
    "Pad": (1, 3), "OneHot": (1,), "CenterCropPad": (1,), "MaxUnpool": (2,), "Col2Im": (1, 2), "DFT": (1,),
    "STFT": (1, 3), "HannWindow": (0,), "HammingWindow": (0,), "BlackmanWindow": (0,), "MelWeightMatrix": (0, 1),
    "CropAndResize": (3,),
}  # fmt: skip
"""Which inputs decide how much larger the output is than the inputs, by operator."""

_CUTTING = frozenset(
    {"NonZero", "Compress", "Unique", "TopK", "Slice", "Reshape", "Split", "SplitToSequence", "NonMaxSuppression",
     "Squeeze", "Unsqueeze"}
)  # fmt: skip
"""Operators whose output has a shape that values may decide, but never more elements than they are given."""

_GROWING_TEXT = frozenset({"StringConcat", "StringSplit"})
_SHAPE_OF = frozenset({"Shape", "Size"})


def is_predictable(graph: GraphFile) -> bool:
    """Whether no value of an input decides a size or a number of rounds. In doubt, no."""
    if graph.functions or not graph.nodes:
        return False
    from_values = set(graph.inputs) - graph.initializers
    shaped_by_values: set[str] = set()
    for node in graph.nodes:
        if node.has_subgraph or node.op_type in _GROWING_TEXT or _is_sized(node, from_values):
            return False
        cuts = node.op_type in _CUTTING and any(name in from_values for name in node.inputs[1:])
        if cuts or node.op_type in {"NonZero", "Unique"} or not shaped_by_values.isdisjoint(node.inputs):
            shaped_by_values.update(node.outputs)
        source = shaped_by_values if node.op_type in _SHAPE_OF else from_values
        if not source.isdisjoint(node.inputs):
            from_values.update(node.outputs)
    return True


def _is_sized(node: GraphNode, from_values: set[str]) -> bool:
    """Whether a value decides the size of what the node makes."""
    deciding = _SIZE_INPUTS.get(node.op_type, ())
    return any(index < len(node.inputs) and node.inputs[index] in from_values for index in deciding)
