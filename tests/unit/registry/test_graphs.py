"""Which ONNX files may be served, and what their signature is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from modelyard.core.errors import MalformedContent
from modelyard.registry.content.graphs import read_graph
from modelyard.registry.content.limits import GraphLimits
from modelyard.registry.content.messages import GraphFacts, TensorFacts
from support.onnx_graphs import linear_model, nested_if, onnx_bytes

FLOAT = TensorProto.FLOAT


def read(folder: Path, model: ModelProto | bytes, limits: GraphLimits | None = None) -> GraphFacts:
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return read_graph(path, limits or GraphLimits())


def complaint(folder: Path, model: ModelProto | bytes, limits: GraphLimits | None = None) -> str:
    with pytest.raises(MalformedContent) as raised:
        read(folder, model, limits)
    return raised.value.message


def loads(model: ModelProto) -> bool:
    """Whether ONNX Runtime takes it."""
    onnxruntime.set_default_logger_severity(4)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - it has no common base
        return False
    return True


def test_the_signature_is_read_with_types_shapes_and_versions(tmp_path: Path) -> None:
    assert read(tmp_path, linear_model()) == GraphFacts(
        inputs=(TensorFacts("x", "FP32", (-1, 2)),),
        outputs=(TensorFacts("y", "FP32", (-1, 2)),),
        opset_version=20,
        ir_version=10,
    )


def test_initializers_that_are_also_declared_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info(name, FLOAT, [2]) for name in ("x", "w")]
    outputs = [helper.make_tensor_value_info("y", FLOAT, [2])]
    facts = read(tmp_path, linear_model(inputs=inputs, outputs=outputs))
    assert [tensor.name for tensor in facts.inputs] == ["x"]


@pytest.mark.parametrize(
    ("element", "name"),
    [
        (TensorProto.BOOL, "BOOL"), (TensorProto.UINT8, "UINT8"), (TensorProto.UINT16, "UINT16"),
        (TensorProto.UINT32, "UINT32"), (TensorProto.UINT64, "UINT64"), (TensorProto.INT8, "INT8"),
        (TensorProto.INT16, "INT16"), (TensorProto.INT32, "INT32"), (TensorProto.INT64, "INT64"),
        (TensorProto.FLOAT16, "FP16"), (TensorProto.FLOAT, "FP32"), (TensorProto.DOUBLE, "FP64"),
        (TensorProto.BFLOAT16, "BF16"), (TensorProto.STRING, "BYTES"),
    ],
)  # fmt: skip
def test_every_element_type_has_its_name(tmp_path: Path, element: int, name: str) -> None:
    model = linear_model(
        nodes=[helper.make_node("Identity", ["x"], ["y"])],
        inputs=[helper.make_tensor_value_info("x", element, [])],
        outputs=[helper.make_tensor_value_info("y", element, [])],
        initializer=[],
    )
    assert read(tmp_path, model).inputs == (TensorFacts("x", name, ()),)


def test_the_version_limits_are_those_of_the_installed_runtime() -> None:
    limits = GraphLimits()
    for opset in (limits.min_opset, limits.max_opset):
        assert loads(linear_model(opset=opset)), opset
    for opset in (limits.min_opset - 1, limits.max_opset + 1):
        assert not loads(linear_model(opset=opset)), opset
    assert loads(linear_model(ir_version=limits.max_ir_version))
    assert not loads(linear_model(ir_version=limits.max_ir_version + 1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"opset": 6}, "loads 7 to 28"),
        ({"opset": 29}, "loads 7 to 28"),
        ({"ir_version": 2}, "loads 3 to 14"),
        ({"ir_version": 15}, "loads 3 to 14"),
    ],
)
def test_versions_that_the_runtime_does_not_load_are_refused(
    tmp_path: Path, options: dict[str, Any], expected: str
) -> None:
    assert expected in complaint(tmp_path, linear_model(**options))


def test_a_version_of_the_ml_operators_that_the_runtime_does_not_load_is_refused(tmp_path: Path) -> None:
    model = linear_model()
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 6))
    assert not loads(model)
    assert "loads 1 to 5" in complaint(tmp_path, model)


@pytest.mark.parametrize("cut", [1, 5, 20, 50])
def test_a_truncated_file_is_refused(tmp_path: Path, cut: int) -> None:
    complaint(tmp_path, onnx_bytes()[:-cut])


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(100), bytes(1000)])
def test_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "ONNX file" in complaint(tmp_path, content)


def external(tensor: TensorProto) -> TensorProto:
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def constant(value: TensorProto) -> Any:
    return helper.make_node("Constant", [], ["w"], value=value)


def test_external_data_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    tensor = external(helper.make_tensor("w", FLOAT, [2], [1, 2]))
    add = helper.make_node("Add", ["x", "w"], ["y"])
    branch = helper.make_graph([constant(tensor)], "b", [], [helper.make_tensor_value_info("w", FLOAT, [2])])
    conditional = helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch)
    sparse = helper.make_sparse_tensor(tensor, helper.make_tensor("i", TensorProto.INT64, [2], [0, 1]), [2])
    for model in (
        linear_model(initializer=[tensor]),
        linear_model(nodes=[constant(tensor), add], initializer=[]),
        linear_model(nodes=[conditional, add], initializer=[]),
        linear_model(initializer=[], sparse_initializer=[sparse]),
        linear_model(nodes=[helper.make_node("Constant", [], ["w"], sparse_value=sparse), add], initializer=[]),
    ):
        assert "is in another file" in complaint(tmp_path, model)


def test_external_entries_without_the_external_mark_are_refused_too(tmp_path: Path) -> None:
    tensor = helper.make_tensor("w", FLOAT, [2], [1, 2])
    tensor.external_data.add(key="location", value="weights.bin")
    assert "is in another file" in complaint(tmp_path, linear_model(initializer=[tensor]))


@pytest.mark.parametrize("domain", ["evil.corp", "ai.onnx.preview.training", "com.microsoft.nchwc"])
def test_operators_of_other_domains_are_refused(tmp_path: Path, domain: str) -> None:
    model = linear_model(nodes=[helper.make_node("Add", ["x", "w"], ["y"], domain=domain)])
    model.opset_import.append(helper.make_opsetid(domain, 1))
    assert f"of '{domain}'" in complaint(tmp_path, model)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    content = onnx_bytes()
    assert "printable" in complaint(tmp_path, content.replace(b"\x0a\x01x\x12", b"\x0a\x01\xff\x12"))
    domain = linear_model(nodes=[helper.make_node("Add", ["x", "w"], ["y"], domain="d" * 200)]).SerializeToString()
    assert "operator 'Add' of" in complaint(tmp_path, domain.replace(b"d" * 200, b"\xff" * 200))


def test_operators_that_load_files_are_refused(tmp_path: Path) -> None:
    model = linear_model(nodes=[helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert "EPContext" in complaint(tmp_path, model)


def test_operators_that_the_runtime_brings_beside_onnx_are_allowed(tmp_path: Path) -> None:
    model = linear_model(nodes=[helper.make_node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft")])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert read(tmp_path, model).opset_version == 20


def test_an_operator_in_a_subgraph_is_seen(tmp_path: Path) -> None:
    evil = helper.make_node("Add", ["x", "x"], ["z"], domain="evil.corp")
    branch = helper.make_graph([evil], "b", [], [helper.make_tensor_value_info("z", FLOAT, [2])])
    model = linear_model(nodes=[helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)])
    assert "evil.corp" in complaint(tmp_path, model)


def test_functions_are_refused(tmp_path: Path) -> None:
    model = linear_model()
    body = [helper.make_node("Identity", ["a"], ["b"])]
    model.functions.append(helper.make_function("local", "twice", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))
    assert "'twice'" in complaint(tmp_path, model)


def test_graphs_beyond_the_limits_are_refused(tmp_path: Path) -> None:
    assert "more than 0 nodes" in complaint(tmp_path, linear_model(), GraphLimits(max_nodes=0))
    assert "deeper than 3" in complaint(tmp_path, linear_model(nodes=[nested_if(4)]), GraphLimits(max_depth=3))
    assert "at most 0 are" in complaint(tmp_path, linear_model(), GraphLimits(max_tensors=0))


def test_subgraphs_nested_beyond_what_protobuf_parses_are_refused(tmp_path: Path) -> None:
    def wrapped(content: bytes, field: int) -> bytes:
        length, prefix = len(content), bytearray()
        while length >= 0x80:
            prefix.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes([field << 3 | 2, *prefix, length]) + content

    graph = b""
    for _ in range(300):  # a graph in an attribute in a node in a graph
        graph = wrapped(wrapped(wrapped(graph, 6), 5), 1)
    assert "ONNX file" in complaint(tmp_path, b"\x08\x0a" + wrapped(graph, 7))


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (TensorProto(name="w", dims=[2], data_type=FLOAT, raw_data=b"1234"), "needs 8 bytes, the file holds 4"),
        (TensorProto(name="w", dims=[10**12], data_type=FLOAT, raw_data=b"12345678"), "needs 4000000000000 bytes"),
        (TensorProto(name="w", dims=[2], data_type=FLOAT, float_data=[1.0]), "needs 2 values, the file holds 1"),
        (TensorProto(name="w", dims=[-2], data_type=FLOAT, float_data=[1.0]), "negative dimension"),
        (TensorProto(name="w", dims=[10**6] * 4, data_type=TensorProto.INT64), "the file holds 0"),
    ],
)
def test_tensors_whose_bytes_do_not_fit_their_shape_are_refused(
    tmp_path: Path, tensor: TensorProto, expected: str
) -> None:
    assert expected in complaint(tmp_path, linear_model(initializer=[tensor]))


@pytest.mark.parametrize("array", [np.ones(2, "f4"), np.zeros((0, 2), "f4"), np.float32(1)])
def test_tensors_of_any_rank_are_taken(tmp_path: Path, array: Any) -> None:
    tensor = numpy_helper.from_array(np.asarray(array), "w")
    output = [helper.make_tensor_value_info("y", FLOAT, [None] * max(1, np.ndim(array)))]
    inputs = [helper.make_tensor_value_info("x", FLOAT, [1] * max(1, np.ndim(array)))]
    read(tmp_path, linear_model(inputs=inputs, outputs=output, initializer=[tensor]))


@pytest.mark.parametrize(
    ("replaced", "expected"),
    [
        ({"inputs": []}, "has no inputs"),
        ({"outputs": []}, "has no outputs"),
        ({"inputs": [helper.make_tensor_value_info("x", FLOAT, None)]}, "'x' has no shape"),
        ({"outputs": [helper.make_tensor_value_info("y", TensorProto.COMPLEX64, [2])]}, "type COMPLEX64"),
        ({"inputs": [helper.make_tensor_sequence_value_info("x", FLOAT, [2])]}, "'x' is sequence_type"),
        ({"inputs": [helper.make_tensor_value_info("x", FLOAT, [-5])]}, "negative dimension -5"),
        ({"inputs": [helper.make_tensor_value_info("x\n", FLOAT, [2])]}, "printable"),
        ({"inputs": [helper.make_tensor_value_info("x", FLOAT, [2])] * 2}, "same name"),
        ({"nodes": [helper.make_node("NoSuchOperator", ["x"], ["y"])]}, "not a valid ONNX graph"),
        ({"nodes": [helper.make_node("Add", ["x", "nowhere"], ["y"])]}, "not a valid ONNX graph"),
        ({"nodes": [helper.make_node("Add", ["x"], ["y"])]}, "not a valid ONNX graph"),
        ({"outputs": [helper.make_tensor_value_info("y", FLOAT, [3, 3, 3])]}, "not a valid ONNX graph"),
    ],
)
def test_graphs_that_no_pod_could_load_are_refused(tmp_path: Path, replaced: dict[str, Any], expected: str) -> None:
    assert expected in complaint(tmp_path, linear_model(**replaced))


def test_training_information_and_operator_sets_twice_are_refused(tmp_path: Path) -> None:
    model = linear_model()
    model.training_info.add()
    assert "training information" in complaint(tmp_path, model)
    model = linear_model()
    model.opset_import.append(helper.make_opsetid("ai.onnx", 20))
    assert "imported twice" in complaint(tmp_path, model)
    del model.opset_import[:]
    assert "not imported" in complaint(tmp_path, model)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(position=st.integers(0, 109), value=st.integers(0, 255))
def test_a_flipped_byte_is_a_graph_or_refused(tmp_path: Path, position: int, value: int) -> None:
    content = bytearray(onnx_bytes())
    content[position] = value
    try:
        graph = read(tmp_path, bytes(content))
    except MalformedContent as error:
        assert error.message  # noqa: PT017 - the other outcome is as good
    else:
        assert graph.inputs
