"""From a PyTorch module to the bytes of an ONNX file: the same bytes for the same weights on any machine."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

OPSET = 20
INPUT = "input"
BATCH = "batch"
_EXAMPLE_ROWS = 3
"""Not 0 or 1: the exporter would take the batch for a constant."""


def export_onnx(served: nn.Module, input_shape: tuple[int, ...], output: str) -> bytes:
    """The graph of `served` (on the CPU) from `input` [batch, *input_shape] float32 to `output` [batch, outputs].

    Weights are inside the file. Raises onnx.checker.ValidationError should the graph not be valid.
    """
    served.eval()
    example = torch.zeros(_EXAMPLE_ROWS, *input_shape)
    with _quiet():
        program = torch.onnx.export(
            served,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("the exporter answered nothing")
    model: ModelProto = program.model_proto
    _strip(model)
    content = model.SerializeToString(deterministic=True)

    import onnx

    onnx.checker.check_model(content, full_check=True)
    return content


def preload() -> Iterator[None]:
    """Does in parts, each a second or two, what makes the first export slow: for a trainer that waits for its job."""
    import onnxruntime  # noqa: F401

    yield
    import torch._dynamo  # noqa: F401

    yield
    import onnxscript  # noqa: F401

    yield
    export_onnx(nn.Linear(2, 1), (2,), "prediction")


def _strip(model: ModelProto) -> None:
    """Takes out what names this machine: source paths and lines on every node, the build of PyTorch.

    They say nothing about what is computed, and would give the same weights another digest elsewhere.
    """
    model.producer_version = torch.__version__.split("+")[0]
    del model.metadata_props[:]
    model.ClearField("doc_string")
    _strip_graph(model.graph)
    for function in model.functions:
        del function.metadata_props[:]
        function.ClearField("doc_string")
        for node in function.node:
            del node.metadata_props[:]
            node.ClearField("doc_string")


def _strip_graph(graph: GraphProto) -> None:
    """The same for one graph and the graphs inside its nodes."""
    graph.ClearField("doc_string")
    for entries in ([graph], graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        for entry in entries:
            del entry.metadata_props[:]
            entry.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                _strip_graph(inner)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's talk is for its developers, not for the people who read a job's log; errors still come through."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
