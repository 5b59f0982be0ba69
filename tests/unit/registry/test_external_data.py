"""Graphs with their weights in another file: exactly the one that was named, with every byte in place."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from modelyard.core.errors import MalformedContent
from modelyard.registry.content.graphs import read_graph
from modelyard.registry.content.limits import ExternalFile, GraphLimits
from support import graphs
from support.external_graphs import LOCATION, external, place

FILE = ExternalFile(LOCATION, 16)


def read(folder: Path, content: bytes, file: ExternalFile | None = FILE) -> str:
    path = folder / "graph"
    path.write_bytes(content)
    facts = read_graph(path, GraphLimits(external=file))
    return ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in (*facts.inputs, *facts.outputs))


def test_a_graph_with_its_weights_in_the_named_file_is_read_without_it(tmp_path: Path) -> None:
    assert read(tmp_path, external()[0]) == "x [-1, 4], y [-1, 4]"
    assert read(tmp_path, external(offset="", length="")[0]) == "x [-1, 4], y [-1, 4]"


def test_a_graph_that_needs_no_file_may_have_one(tmp_path: Path) -> None:
    assert read(tmp_path, graphs.scale(2)) == "x [-1, 2], y [-1, 2]"


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"location": "other.bin"}, "is in the file 'other.bin'; allowed is 'weights.bin'"),
        ({"location": "../weights.bin"}, "allowed is 'weights.bin'"),
        ({"location": "/etc/passwd"}, "is in the file '/etc/passwd'"),
        ({"location": "./weights.bin"}, "allowed is 'weights.bin'"),
        ({"location": ""}, "allowed is 'weights.bin'"),
        ({"offset": "4"}, "needs 16 bytes; it is 16 bytes at 4 of a file of 16"),
        ({"offset": "-4"}, "offset of a tensor in another file is '-4'"),
        ({"offset": "9" * 40}, "offset of a tensor in another file is '999"),
        ({"length": "8"}, "needs 16 bytes; it is 8 bytes at 0"),
        ({"length": "0x10"}, "length of a tensor in another file is '0x10'"),
        ({"basepath": "/tmp"}, "in a way that is not known"),
    ],
)
def test_what_points_elsewhere_or_beyond_is_refused(entries: dict[str, str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(MalformedContent) as raised:
        read(tmp_path, external(**entries)[0])
    assert reason in raised.value.message


def test_weights_in_a_file_that_nobody_named_are_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(MalformedContent, match=f"in another file, '{LOCATION}'; .* names as its external data"):
        read(tmp_path, external()[0], None)


def test_entries_given_twice_and_bytes_in_two_places_are_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(external()[0])
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(MalformedContent, match="in a way that is not known"):
        read(tmp_path, model.SerializeToString())
    model = onnx.load_from_string(external()[0])
    model.graph.initializer[0].raw_data = bytes(16)
    with pytest.raises(MalformedContent, match="in two files at once"):
        read(tmp_path, model.SerializeToString())


def test_constants_of_nodes_and_subgraphs_stay_in_the_graph(tmp_path: Path) -> None:
    model = onnx.load_from_string(graphs.scale(2, 4))
    constant = helper.make_tensor("", TensorProto.FLOAT, [4], [1] * 4)
    place(constant, {"location": LOCATION})
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=constant))
    with pytest.raises(MalformedContent, match="only be an initializer of the main graph"):
        read(tmp_path, model.SerializeToString())
