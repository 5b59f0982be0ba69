"""Walks every node and tensor of an ONNX graph, subgraphs included, and refuses what must not be served."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto

from modelyard.core.errors import MalformedContent

from .external_data import check_external
from .limits import GraphLimits
from .tensor_types import ELEMENT_BITS, VALUE_FIELDS, quoted

DEFAULT_DOMAIN = "ai.onnx"
"""The long form of the empty domain name."""

_FORBIDDEN = frozenset({("com.microsoft", "EPContext")})  # names a file beside the model to be loaded as code


def check_graph(model: ModelProto, limits: GraphLimits) -> None:
    """Raises MalformedContent for external data, foreign operators, functions, and graphs beyond the limits."""
    if model.functions:
        # A dozen functions that each call the one before twice unfold to thousands of nodes, thirty to billions.
        raise MalformedContent(
            f"the model defines the function {quoted(model.functions[0].name)}; inline functions before publishing"
        )
    if model.training_info:
        raise MalformedContent("the model carries training information; export it for inference")
    nodes = 0
    for level in _levels(model.graph, limits):
        nodes += len(level.graph.node)
        if nodes > limits.max_nodes:
            raise MalformedContent(f"the graph has more than {limits.max_nodes} nodes")
        _check_level(level, limits)


@dataclass(frozen=True, slots=True)
class _Level:
    """A graph or subgraph."""

    graph: GraphProto
    depth: int


def _levels(graph: GraphProto, limits: GraphLimits) -> Iterator[_Level]:
    """The graph and every subgraph in it, without recursion."""
    waiting = [_Level(graph, 1)]
    while waiting:
        level = waiting.pop()
        if level.depth > limits.max_depth:
            raise MalformedContent(f"the graph nests subgraphs deeper than {limits.max_depth}")
        yield level
        waiting.extend(_Level(subgraph, level.depth + 1) for subgraph in _subgraphs(level.graph))


def _subgraphs(graph: GraphProto) -> Iterator[GraphProto]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def _check_level(level: _Level, limits: GraphLimits) -> None:
    external = limits.external if level.depth == 1 else None
    for tensor in level.graph.initializer:
        if external is not None and tensor.data_location == TensorProto.EXTERNAL:
            check_external(tensor, external)
        else:
            _check_tensor(tensor)
    for sparse in level.graph.sparse_initializer:
        _check_sparse(sparse)
    for node in level.graph.node:
        _check_node(node, limits)


def _check_node(node: NodeProto, limits: GraphLimits) -> None:
    domain = node.domain or DEFAULT_DOMAIN
    if domain not in limits.domains or (domain, node.op_type) in _FORBIDDEN:
        raise MalformedContent(
            f"node {quoted(node.name)} is the operator {quoted(node.op_type)} of {quoted(domain)}; allowed are "
            f"the operators of {', '.join(limits.domains)} that are built into the runtime"
        )
    for attribute in node.attribute:
        _check_attribute(attribute)


def _check_attribute(attribute: AttributeProto) -> None:
    if attribute.HasField("t"):
        _check_tensor(attribute.t)
    if attribute.HasField("sparse_tensor"):
        _check_sparse(attribute.sparse_tensor)
    for tensor in attribute.tensors:
        _check_tensor(tensor)
    for sparse in attribute.sparse_tensors:
        _check_sparse(sparse)


def _check_sparse(sparse: SparseTensorProto) -> None:
    _check_tensor(sparse.values)
    _check_tensor(sparse.indices)


def _location(tensor: TensorProto) -> str:
    """Where the tensor says that its bytes are."""
    return next((quoted(entry.value) for entry in tensor.external_data if entry.key == "location"), "which has no name")


def _check_tensor(tensor: TensorProto) -> None:
    """Its bytes must be in the file, and as many as its shape says."""
    name = quoted(tensor.name)
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise MalformedContent(
            f"the tensor {name} is in another file, {_location(tensor)}; that may only be an initializer of the main "
            "graph, in the one file that the version names as its external data"
        )
    if any(size < 0 for size in tensor.dims):
        raise MalformedContent(f"the tensor {name} has a negative dimension: {list(tensor.dims)}")
    bits = ELEMENT_BITS.get(tensor.data_type)
    if tensor.HasField("raw_data"):
        held, needed, unit = len(tensor.raw_data), (prod(tensor.dims) * (bits or 0) + 7) // 8, "bytes"
        known = bits is not None
    else:
        field = VALUE_FIELDS.get(tensor.data_type, "")
        held, needed, unit = len(getattr(tensor, field, ())), prod(tensor.dims), "values"
        known = bool(field)
    if known and held != needed:
        raise MalformedContent(
            f"the tensor {name} of shape {list(tensor.dims)} needs {needed} {unit}, the file holds {held}"
        )
