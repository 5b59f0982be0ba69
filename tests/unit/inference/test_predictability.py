"""What the pod reads of an ONNX file itself: its nodes, the files it points to, whether values decide sizes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from modelyard.core.errors import MalformedContent
from modelyard.inference.execution.predictability import is_predictable
from modelyard.inference.loading.graph_file import GraphFile, read_graph_file
from support import graphs, hostile_graphs

FLOATS = (TensorProto.FLOAT, ("batch", 2))


def read(folder: Path, content: bytes) -> GraphFile:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return read_graph_file(path)


def shaped_like_its_input() -> bytes:
    """y = x + ones of x's shape: sizes that come from shapes, as exporters write them."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Add", ["x", "zeros"], ["y"]),
    ]
    return graphs.graph(nodes, {"x": FLOATS}, {"y": FLOATS})


def counting_non_zeros() -> bytes:
    """A vector as long as there are elements other than 0: values decide, by way of a shape."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("Shape", ["where"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["y"]),
    ]
    return graphs.graph(nodes, {"x": FLOATS}, {"y": (TensorProto.FLOAT, ("a", "b"))})


@pytest.mark.parametrize(
    ("content", "predictable"),
    [
        (graphs.scale(2), True),
        (graphs.slow(4), True),
        (shaped_like_its_input(), True),
        (counting_non_zeros(), False),
        (hostile_graphs.allocating(), False),
        (hostile_graphs.looping(), False),
    ],
    ids=["scale", "products", "sizes of shapes", "sizes of shapes of values", "allocating", "looping"],
)
def test_values_that_decide_sizes_or_rounds_are_seen(content: bytes, *, predictable: bool, tmp_path: Path) -> None:
    assert is_predictable(read(tmp_path, content)) is predictable


def test_every_file_that_a_tensor_names_is_found(tmp_path: Path) -> None:
    model = onnx.load_from_string(hostile_graphs.looping())
    places = [model.graph.initializer[0], model.graph.node[-1].attribute[0].g.initializer.add(name="inner")]
    node = model.graph.node.add(op_type="Constant", output=["c"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.name = "t"
    places.append(node.attribute[0].t)
    for number, tensor in enumerate(places):
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="offset", value="0")
        tensor.external_data.add(key="location", value=f"../secret{number}")
    found = read(tmp_path, model.SerializeToString())
    assert found.external_files == {"../secret0", "../secret1", "../secret2"}


def test_it_reads_what_onnx_reads(tmp_path: Path) -> None:
    content = graphs.slow(4)
    graph = onnx.load_from_string(content).graph
    found = read(tmp_path, content)
    assert [(node.op_type, *node.inputs, *node.outputs) for node in found.nodes] == [
        (node.op_type, *node.input, *node.output) for node in graph.node
    ]
    assert (found.inputs, found.outputs, found.node_count) == (["x"], ["y"], len(graph.node))
    assert (found.initializers, found.external_files) == ({"w"}, set())


def test_more_nodes_than_the_registry_takes_are_refused(tmp_path: Path) -> None:
    node = b"\x0a\x00"  # GraphProto.node, empty
    graph = node * 200_001
    content = b"\x3a\x82\xb5\x18" + graph  # ModelProto.graph of 400,002 bytes
    with pytest.raises(MalformedContent, match="more than 200000 nodes"):
        read(tmp_path, content)
    assert read(tmp_path, b"\x3a\x06" + node * 3).node_count == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(place=st.integers(min_value=0), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, place: int, value: int, *, cut: bool) -> None:
    content = bytearray(hostile_graphs.looping())
    content[place % len(content)] = value
    try:
        found = read(tmp_path, bytes(content[: place % len(content)] if cut else content))
    except MalformedContent as error:
        assert error.message  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(is_predictable(found), bool)
