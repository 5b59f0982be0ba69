"""Reads what the pod must know of an ONNX file beyond what the runtime tells: its nodes and the files it points to.

Protobuf's wire format is walked over a memory map, weights are passed over unread: a file of a gigabyte costs no
memory, and the pod needs no onnx package. Field numbers: onnx.proto of the ONNX specification.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.core.errors import MalformedContent
from modelyard.core.names import shorten

_MAX_DEPTH = 16  # of subgraphs; this and the next are the registry's limits too
_MAX_NODES = 200_000  # over all subgraphs
_VARINT_BITS = 70

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types
_MODEL_GRAPH, _MODEL_FUNCTIONS, _FUNCTION_NAME = 7, 25, 1
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE = 1, 5, 11, 12, 15
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP_TYPE, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_SPARSE_TENSORS = (1, 2)
_TENSOR_NAME, _TENSOR_EXTERNAL = 8, 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VALUE_NAME = 1


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One node of the main graph."""

    op_type: str
    inputs: tuple[str, ...]
    """Names of tensors; empty where an optional one is left out."""
    outputs: tuple[str, ...]
    has_subgraph: bool


@dataclass(slots=True)
class GraphFile:
    """What was read."""

    nodes: list[GraphNode] = field(default_factory=list)
    """Of the main graph, in its order, which is one in which they can be computed."""
    inputs: list[str] = field(default_factory=list)
    """As declared, those with an initializer included."""
    outputs: list[str] = field(default_factory=list)
    initializers: set[str] = field(default_factory=set)
    """Names of the main graph's constants."""
    external_files: set[str] = field(default_factory=set)
    """Every location that a tensor anywhere in the file names, as it stands there."""
    node_count: int = 0
    """Those of subgraphs included."""
    functions: list[str] = field(default_factory=list)
    """Names of what the file defines as operators of its own. They are not looked into."""

    def check(self, allowed: str) -> None:
        """Raises MalformedContent for a graph that the registry would not have taken.

        That is one that points to any file but `allowed` (empty: none), which the runtime would open; one that defines
        functions: a dozen that each call the one before twice unfold to thousands of nodes, thirty to billions; and one
        whose outputs a caller could not ask for.
        """
        if not self.outputs or len(set(self.outputs)) < len(self.outputs):
            names = ", ".join(shorten(name) for name in self.outputs[:3])
            raise MalformedContent(f"the graph has the outputs [{names}]; expected one or more of different names")
        if self.functions:
            raise MalformedContent(
                f"the model defines the function {shorten(self.functions[0])!r}; inline functions before publishing"
            )
        for location in sorted(self.external_files - {allowed}):
            raise MalformedContent(
                f"the graph points to the file {shorten(location)!r}; expected {allowed or 'none but its own'}"
            )


def read_graph_file(path: Path) -> GraphFile:
    """Walks the file. Raises MalformedContent if it is none, OSError if it cannot be read."""
    found = GraphFile()
    try:
        with path.open("rb") as file:
            # Not closed but dropped: pieces of it live on in the frames of an error.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        _read_model(memoryview(content), found)
    except (IndexError, ValueError) as error:  # ends inside a field; is empty, or holds a name that is not UTF-8
        raise MalformedContent("not a whole ONNX file: it cannot be parsed (truncated, or another format)") from error
    return found


def _read_model(model: memoryview, found: GraphFile) -> None:
    for number, value in _messages(model):
        if number == _MODEL_GRAPH:
            _read_graph(value, found, depth=1)
        elif number == _MODEL_FUNCTIONS:
            found.functions.append(_text(value, _FUNCTION_NAME))


def _read_graph(graph: memoryview, found: GraphFile, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise MalformedContent(f"the graph nests subgraphs deeper than {_MAX_DEPTH}")
    for number, value in _messages(graph):
        if number == _GRAPH_NODE:
            _take_node(_read_node(value, found, depth), found, depth)
        elif number == _GRAPH_INITIALIZER:
            _take_initializer(_read_tensor(value, found), found, depth)
        elif number == _GRAPH_SPARSE:
            _read_sparse(value, found)
        elif number == _GRAPH_INPUT and depth == 1:
            found.inputs.append(_text(value, _VALUE_NAME))
        elif number == _GRAPH_OUTPUT and depth == 1:
            found.outputs.append(_text(value, _VALUE_NAME))


def _take_node(node: GraphNode, found: GraphFile, depth: int) -> None:
    found.node_count += 1
    if found.node_count > _MAX_NODES:
        raise MalformedContent(f"the graph has more than {_MAX_NODES} nodes")
    if depth == 1:
        found.nodes.append(node)


def _take_initializer(name: str, found: GraphFile, depth: int) -> None:
    if depth == 1 and name in found.initializers:  # the runtime would take the last one
        raise MalformedContent(f"two constants of the graph have the name {shorten(name)!r}")
    if depth == 1:
        found.initializers.add(name)


def _read_node(node: memoryview, found: GraphFile, depth: int) -> GraphNode:
    inputs, outputs, op_type, has_subgraph = [], [], "", False
    for number, value in _messages(node):
        if number == _NODE_INPUT:
            inputs.append(_decode(value))
        elif number == _NODE_OUTPUT:
            outputs.append(_decode(value))
        elif number == _NODE_OP_TYPE:
            op_type = _decode(value)
        elif number == _NODE_ATTRIBUTE:
            has_subgraph |= _read_attribute(value, found, depth)
    return GraphNode(op_type, tuple(inputs), tuple(outputs), has_subgraph)


def _read_attribute(attribute: memoryview, found: GraphFile, depth: int) -> bool:
    """Answers whether it holds a graph."""
    has_subgraph = False
    for number, value in _messages(attribute):
        if number in _ATTRIBUTE_GRAPHS:
            has_subgraph = True
            _read_graph(value, found, depth + 1)
        elif number in _ATTRIBUTE_TENSORS:
            _read_tensor(value, found)
        elif number in _ATTRIBUTE_SPARSE:
            _read_sparse(value, found)
    return has_subgraph


def _read_sparse(sparse: memoryview, found: GraphFile) -> None:
    for number, value in _messages(sparse):
        if number in _SPARSE_TENSORS:
            _read_tensor(value, found)


def _read_tensor(tensor: memoryview, found: GraphFile) -> str:
    """Notes the file that holds its values, if another does; answers its name."""
    name = ""
    for number, value in _messages(tensor):
        if number == _TENSOR_NAME:
            name = _decode(value)
        elif number == _TENSOR_EXTERNAL and _text(value, _ENTRY_KEY) == "location":
            found.external_files.add(_text(value, _ENTRY_VALUE))
    return name


def _text(message: memoryview, wanted: int) -> str:
    return next((_decode(value) for number, value in _messages(message) if number == wanted), "")


def _decode(value: memoryview) -> str:
    return bytes(value).decode()


def _messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The length-delimited fields of a message; other fields are passed over. Raises IndexError where it is cut off."""
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        kind = key & 7
        if kind == _LENGTH:
            size, position = _varint(message, position)
            if position + size > end:
                raise IndexError("a field is longer than its message")
            yield key >> 3, message[position : position + size]
            position += size
        elif kind == _VARINT:
            _, position = _varint(message, position)
        elif kind in {_FIXED64, _FIXED32}:
            position += 8 if kind == _FIXED64 else 4
        else:
            raise IndexError(f"wire type {kind}")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number and where what follows it begins."""
    value = shift = 0
    while shift < _VARINT_BITS:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise IndexError("a number of more than ten bytes")
