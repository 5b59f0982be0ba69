"""ONNX Runtime as the pod uses it: what is loaded, what is refused, what warm-up finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelyard.core.errors import MalformedContent
from modelyard.inference.execution.sessions import LOAD_ERRORS, GraphSession, RuntimeOptions
from modelyard.inference.execution.signature import Signature, TensorInfo
from modelyard.inference.loading.compatibility import check_runtime_supports
from modelyard.inference.loading.smallest_graph import smallest_graph
from support import graphs

OPTIONS = RuntimeOptions(device="cpu")


def load(folder: Path, content: bytes) -> GraphSession:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return GraphSession(path, OPTIONS)


def test_the_signature_is_read_from_the_graph(tmp_path: Path) -> None:
    signature = load(tmp_path, graphs.scale(2)).signature
    assert str(signature) == "(x FP32 [-1, 2]) -> (y FP32 [-1, 2])"
    assert (signature.batched, signature.free_shapes) == (True, False)


@pytest.mark.parametrize(
    ("shape", "batched", "free"),
    [(("batch", 2), True, False), ((1, 2), False, False), ((2, "n"), False, True), (("batch", "n"), True, True)],
)
def test_a_free_first_dimension_is_the_batch(
    tmp_path: Path, shape: tuple[int | str, ...], *, batched: bool, free: bool
) -> None:
    signature = load(tmp_path, graphs.identity(TensorProto.FLOAT, shape)).signature
    assert (signature.batched, signature.free_shapes) == (batched, free)


def test_a_scalar_beside_a_batch_makes_no_batched_graph(tmp_path: Path) -> None:
    node = helper.make_node("Mul", ["x", "s"], ["y"])
    floats = (TensorProto.FLOAT, ("batch", 2))
    content = graphs.graph([node], {"x": floats, "s": (TensorProto.FLOAT, ())}, {"y": floats})
    session = load(tmp_path, content)
    session.warm_up([1, 7])
    assert not session.signature.batched


@pytest.mark.parametrize("content", [b"", b"\x00", b"PK\x03\x04", graphs.scale(2)[:-20], b"\x08\x0a" * 50])
def test_what_is_no_graph_is_refused_in_one_line_without_the_path(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(MalformedContent, match="the runtime refuses the graph") as raised:
        load(tmp_path, content)
    assert str(tmp_path) not in raised.value.message
    assert "\n" not in raised.value.message
    assert "ONNXRuntimeError" not in raised.value.message


def test_an_element_type_that_the_protocol_cannot_carry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedContent, match=r"x is a tensor\(float8e4m3fn\)"):
        load(tmp_path, graphs.identity(TensorProto.FLOAT8E4M3FN))


def test_a_file_beside_the_graph_is_never_read(tmp_path: Path) -> None:
    weights = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="secret")
    (tmp_path / "secret").write_bytes(bytes(8))
    model = onnx.ModelProto.FromString(graphs.identity(TensorProto.FLOAT))
    model.graph.node[0].CopyFrom(helper.make_node("Add", ["x", "w"], ["y"]))
    model.graph.initializer.append(weights)
    alone = tmp_path / "alone"
    alone.mkdir()
    with pytest.raises(MalformedContent):
        load(alone, model.SerializeToString())


def only_rows(folder: Path, rows: int) -> GraphSession:
    """Declares a free batch and computes with so many rows only, as graphs traced at one batch size do."""
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    floats = (TensorProto.FLOAT, ("batch", 2))
    session = load(folder, graphs.graph([node], {"x": floats}, {"y": floats}, {"shape": np.array([rows, 2])}))
    declared = session.signature.inputs[0]
    session.signature = Signature.of([declared], [TensorInfo("y", declared.datatype, declared.shape)])
    return session


def test_warm_up_refuses_a_graph_that_computes_one_batch_size_only(tmp_path: Path) -> None:
    session = only_rows(tmp_path, 1)
    session.warm_up([1])
    with pytest.raises(LOAD_ERRORS, match="Reshape"):
        session.warm_up([1, 2])


def test_warm_up_leaves_out_batches_that_would_take_very_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.inference.execution.sessions._WARM_UP_S", 0.0)
    only_rows(tmp_path, 1).warm_up([2, 1])  # two rows would be refused


def test_warm_up_passes_over_shapes_that_it_can_only_guess(tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    free = (TensorProto.FLOAT, ("batch", "n"))
    session = load(tmp_path, graphs.graph([node], {"x": free}, {"y": free}, {"shape": np.array([-1, 7])}))
    session.warm_up([1])
    assert session.run({"x": np.ones((1, 14), np.float32)}, ["y"])[0].shape == (2, 7)


def test_bfloat16_goes_in_and_out_as_bits(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)
    content = graphs.graph(
        [node, helper.make_node("Cast", ["b"], ["f"], to=TensorProto.FLOAT)],
        {"x": (TensorProto.FLOAT, ("batch", 2)), "b": (TensorProto.BFLOAT16, ("batch", 1))},
        {"y": (TensorProto.BFLOAT16, ("batch", 2)), "f": (TensorProto.FLOAT, ("batch", 1))},
    )
    session = load(tmp_path, content)
    session.warm_up([1, 3])
    feeds = {"x": np.array([[1, -2]], np.float32), "b": np.array([[0x4040]], np.uint16)}
    bits, floats = session.run(feeds, ["y", "f"])
    assert (bits.dtype, bits.tolist(), floats.tolist()) == (np.uint16, [[0x3F80, 0xC000]], [[3.0]])


def test_bfloat16_and_text_go_in_together(tmp_path: Path) -> None:
    content = graphs.graph(
        [helper.make_node("Identity", ["t"], ["u"]), helper.make_node("Cast", ["b"], ["f"], to=TensorProto.FLOAT)],
        {"t": (TensorProto.STRING, ("batch", 1)), "b": (TensorProto.BFLOAT16, ("batch", 1))},
        {"u": (TensorProto.STRING, ("batch", 1)), "f": (TensorProto.FLOAT, ("batch", 1))},
    )
    session = load(tmp_path, content)
    session.warm_up([1, 3])
    feeds = {"t": np.array([["a"]], object), "b": np.array([[0x4040]], np.uint16)}
    text, floats = session.run(feeds, ["u", "f"])
    assert (text.tolist(), floats.tolist()) == ([["a"]], [[3.0]])


def test_text_in_and_bfloat16_out_are_refused_with_the_reason(tmp_path: Path) -> None:
    content = graphs.graph(
        [helper.make_node("Identity", ["t"], ["u"]), helper.make_node("Identity", ["b"], ["c"])],
        {"t": (TensorProto.STRING, ("batch", 1)), "b": (TensorProto.BFLOAT16, ("batch", 1))},
        {"u": (TensorProto.STRING, ("batch", 1)), "c": (TensorProto.BFLOAT16, ("batch", 1))},
    )
    with pytest.raises(MalformedContent, match="inputs of BYTES and outputs of BF16"):
        load(tmp_path, content)


def test_a_graph_without_free_shapes_that_fails_is_no_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(LOAD_ERRORS, match="Reshape"):
        only_rows(tmp_path, 1).run({"x": np.ones((3, 2), np.float32)}, ["y"])


def test_the_runtime_is_asked_which_formats_it_takes() -> None:
    check_runtime_supports(20, 10)
    with pytest.raises(MalformedContent, match="operator set 999 and file format 10; ONNX Runtime"):
        check_runtime_supports(999, 10)
    with pytest.raises(MalformedContent, match="Unsupported model IR version: 99"):
        check_runtime_supports(20, 99)


def test_the_smallest_graph_is_a_valid_one() -> None:
    model = onnx.ModelProto.FromString(smallest_graph(300, 10))
    assert (model.opset_import[0].version, model.ir_version) == (300, 10)
    onnx.checker.check_model(onnx.ModelProto.FromString(smallest_graph(20, 10)))
