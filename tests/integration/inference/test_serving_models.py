"""What a pod answers for models that it serves, over real gRPC, with real ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from onnx import TensorProto, helper

import modelyard
from modelyard.core.errors import RemoteError
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES
from modelyard.oip.service import METHODS, SERVICE_NAME
from support import graphs
from support.inference_pod import Pod, infer_request, output, row
from support.served_registry import ServedRegistry, digest_of
from support.waiting import eventually

FLOATS = (TensorProto.FLOAT, ("batch", 2))


def two_by_two() -> bytes:
    """Two inputs, two outputs."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    return graphs.graph(nodes, {"a": FLOATS, "b": FLOATS}, {"sum": FLOATS, "difference": FLOATS})


async def test_a_version_is_answered_by_default_alias_and_number(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("double", graphs.scale(2), aliases=("live", "stable"))
    await pod.until_ready("double")
    for version in ("", "live", "stable", "1"):
        response = await pod.predict("double", row(1, 3), version)
        assert output(response) == [[2, 6]]
        assert (response.model_name, response.model_version, response.id) == ("double", "1", "id-1")
        assert not response.parameters


async def test_outputs_come_raw_in_the_order_asked_each_once(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("two", two_by_two())
    await pod.until_ready("two")
    ones = np.ones((1, 2), np.float32)
    request = infer_request("two", {"b": ones, "a": 3 * ones})  # inputs in any order
    every = await pod.infer(request)
    for name in ("difference", "sum", "difference"):
        request.outputs.add(name=name)
    chosen = await pod.infer(request)
    assert [tensor.name for tensor in every.outputs] == ["sum", "difference"]
    assert [tensor.name for tensor in chosen.outputs] == ["difference", "sum"]
    assert (output(chosen, "sum"), output(chosen, "difference")) == ([[4, 4]], [[2, 2]])
    assert not any(tensor.HasField("contents") for tensor in chosen.outputs)


ELEMENT_TYPES = {
    "BOOL": (TensorProto.BOOL, [True, False]),
    "UINT8": (TensorProto.UINT8, [0, 255]),
    "UINT16": (TensorProto.UINT16, [0, 65535]),
    "UINT32": (TensorProto.UINT32, [0, 2**32 - 1]),
    "UINT64": (TensorProto.UINT64, [0, 2**64 - 1]),
    "INT8": (TensorProto.INT8, [-128, 127]),
    "INT16": (TensorProto.INT16, [-(2**15), 2**15 - 1]),
    "INT32": (TensorProto.INT32, [-(2**31), 2**31 - 1]),
    "INT64": (TensorProto.INT64, [-(2**63), 2**63 - 1]),
    "FP16": (TensorProto.FLOAT16, [1.5, -65504]),
    "FP32": (TensorProto.FLOAT, [1.5, -3e38]),
    "FP64": (TensorProto.DOUBLE, [1.5, -1e308]),
    "BF16": (TensorProto.BFLOAT16, [0x3F80, 0xC000]),
    "BYTES": (TensorProto.STRING, [b"caf\xc3\xa9", b"nul\0inside"]),
}


@pytest.mark.parametrize("name", DATATYPES)
async def test_every_datatype_goes_through_raw_and_typed(name: str, registry: ServedRegistry, pod: Pod) -> None:
    element_type, values = ELEMENT_TYPES[name]
    registry.add("same", graphs.identity(element_type))
    await pod.until_ready("same")
    datatype = DATATYPES[name]
    array = np.array([values], dtype=datatype.dtype)
    request = infer_request("same", {"x": array})
    request.inputs[0].datatype = name
    raw = await pod.infer(request)
    assert raw.outputs[0].datatype == name
    assert raw.raw_output_contents[0] == request.raw_input_contents[0]
    if datatype.contents:
        del request.raw_input_contents[:]
        getattr(request.inputs[0].contents, datatype.contents).extend(values)
        assert (await pod.infer(request)).raw_output_contents == raw.raw_output_contents


async def test_a_bfloat16_batch_of_nothing_but_its_other_shape_is_answered(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("same", graphs.identity(TensorProto.BFLOAT16, ("batch", "any")))
    await pod.until_ready("same")
    request = infer_request("same", {"x": np.zeros((1, 0), np.uint16)})
    request.inputs[0].datatype = "BF16"
    response = await pod.infer(request)
    assert (list(response.outputs[0].shape), response.raw_output_contents[0]) == ([1, 0], b"")


async def test_more_raw_entries_and_unknown_parameters_are_ignored(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("double", graphs.scale(2))
    await pod.until_ready("double")
    request = infer_request("double", row(1, 2))
    request.raw_input_contents.append(b"left over")
    request.parameters["colour"].string_param = "blue"
    request.parameters["sequence_id"].int64_param = 7
    request.parameters["priority"].uint64_param = 1
    assert output(await pod.infer(request)) == [[2, 4]]


async def test_provenance_is_told_on_request(registry: ServedRegistry, pod: Pod) -> None:
    content = graphs.scale(2)
    registry.add("double", content, training_job="trainingJobs/j1", dataset="datasets/d", dataset_digest="ab" * 32)
    await pod.until_ready("double")
    request = infer_request("double", row(1, 2))
    request.parameters["provenance"].bool_param = True
    response = await pod.infer(request)
    assert {name: value.string_param for name, value in response.parameters.items()} == {
        "digest": digest_of(content),
        "training_job": "trainingJobs/j1",
        "dataset": "datasets/d",
        "dataset_digest": "ab" * 32,
    }


async def test_metadata_names_inputs_outputs_and_versions(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("double", graphs.scale(2), aliases=("stable",))
    registry.add("double", graphs.scale(3), aliases=("live",))
    await pod.until_ready("double")
    await pod.until_ready("double", "stable")
    answer = await pod.stub.ModelMetadata(pb.ModelMetadataRequest(name="double"))
    tensor = pb.ModelMetadataResponse.TensorMetadata
    assert answer == pb.ModelMetadataResponse(
        name="double",
        versions=["1", "2"],
        platform="onnxruntime_onnx",
        inputs=[tensor(name="x", datatype="FP32", shape=[-1, 2])],
        outputs=[tensor(name="y", datatype="FP32", shape=[-1, 2])],
    )


async def test_the_configuration_says_how_it_is_served_and_where_it_came_from(
    registry: ServedRegistry, pod: Pod
) -> None:
    content = graphs.scale(2)
    registry.add("double", content, training_job="trainingJobs/j1", spec_digest="cd" * 32)
    await pod.until_ready("double")
    config = (await pod.stub.ModelConfig(pb.ModelConfigRequest(name="double", version="live"))).config
    assert (config.name, config.platform, config.backend) == ("double", "onnxruntime_onnx", "onnxruntime")
    assert (config.max_batch_size, list(config.version_policy.specific.versions)) == (1024, [1])
    assert (config.input[0].name, config.input[0].data_type, list(config.input[0].dims)) == ("x", pb.TYPE_FP32, [2])
    assert (config.instance_group[0].count, config.instance_group[0].kind) == (2, pb.ModelInstanceGroup.KIND_CPU)
    told = {name: value.string_value for name, value in config.parameters.items()}
    plan = {name: told.pop(name) for name in ("batching", "graph_threads", "inline_rows", "measured_us")}
    assert all(plan.values())
    assert told == {
        "version": "1",
        "digest": digest_of(content),
        "training_job": "trainingJobs/j1",
        "spec_digest": "cd" * 32,
        "opset_version": "20",
        "ir_version": "10",
        "aliases": "live",
    }


async def test_a_graph_without_batch_dimension_has_no_batch_size(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("fixed", graphs.identity(TensorProto.STRING, (3,)))
    await pod.until_ready("fixed")
    config = (await pod.stub.ModelConfig(pb.ModelConfigRequest(name="fixed"))).config
    assert (config.max_batch_size, config.input[0].data_type, list(config.input[0].dims)) == (0, pb.TYPE_STRING, [3])


async def test_statistics_add_up(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("double", graphs.scale(2))
    await pod.until_ready("double")
    for rows in (1, 1, 5):
        await pod.predict("double", {"x": np.zeros((rows, 2), np.float32)})
    for columns in (3, 4):
        with pytest.raises(RemoteError):
            await pod.predict("double", {"x": np.zeros((1, columns), np.float32)})
    (counted,) = (await pod.stub.ModelStatistics(pb.ModelStatisticsRequest(name="double"))).model_stats
    stages = counted.inference_stats
    assert (counted.name, counted.version, counted.inference_count, counted.execution_count) == ("double", "1", 7, 3)
    assert (stages.success.count, stages.fail.count) == (3, 2)
    parts = [stages.queue, stages.compute_input, stages.compute_infer, stages.compute_output]
    assert [part.count for part in parts] == [3, 3, 3, 3]
    assert 0 < sum(part.ns for part in parts) <= stages.success.ns
    assert {batch.batch_size: batch.compute_infer.count for batch in counted.batch_stats} == {1: 2, 5: 1}
    assert sum(batch.compute_infer.ns for batch in counted.batch_stats) == stages.compute_infer.ns
    assert counted.last_inference > 1_600_000_000_000


async def test_statistics_of_all_models_and_of_one_version(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("double", graphs.scale(2), aliases=("stable",))
    registry.add("double", graphs.scale(3))
    registry.add("other", graphs.scale(4))
    for model, version in (("double", "1"), ("double", "2"), ("other", "")):
        await pod.until_ready(model, version)

    async def listed(name: str, version: str = "") -> list[tuple[str, str]]:
        answer = await pod.stub.ModelStatistics(pb.ModelStatisticsRequest(name=name, version=version))
        return [(counted.name, counted.version) for counted in answer.model_stats]

    assert await listed("") == [("double", "1"), ("double", "2"), ("other", "1")]
    assert await listed("double") == [("double", "1"), ("double", "2")]
    assert await listed("double", "live") == [("double", "2")]


async def test_the_server_says_what_it_is(registry: ServedRegistry, pod: Pod) -> None:
    assert (await pod.stub.ServerLive(pb.ServerLiveRequest())).live
    answer = await pod.stub.ServerMetadata(pb.ServerMetadataRequest())
    assert (answer.name, answer.version) == ("modelyard", modelyard.__version__)
    assert "statistics" in answer.extensions


async def test_an_empty_registry_makes_a_ready_pod(pod: Pod) -> None:
    async def ready() -> bool:
        return (await pod.stub.ServerReady(pb.ServerReadyRequest())).ready

    await eventually(ready)
    assert not (await pod.stub.ModelReady(pb.ModelReadyRequest(name="nothing"))).ready
    assert await pod.index() == {}


async def test_reflection_lists_the_service_and_gives_its_file(pod: Pod) -> None:
    async def ask(**request: Any) -> reflection_pb2.ServerReflectionResponse:
        stub = reflection_pb2_grpc.ServerReflectionStub(pod.channel)
        requests = iter([reflection_pb2.ServerReflectionRequest(**request)])
        (answer,) = [answer async for answer in stub.ServerReflectionInfo(requests)]
        return answer

    services = (await ask(list_services="")).list_services_response.service
    assert {service.name for service in services} >= {SERVICE_NAME, "grpc.health.v1.Health"}
    found = await ask(file_containing_symbol=SERVICE_NAME)
    file = descriptor_pb2.FileDescriptorProto.FromString(found.file_descriptor_response.file_descriptor_proto[0])
    assert [method.name for method in file.service[0].method] == list(METHODS)
    assert (await ask(file_containing_symbol="grpc.health.v1.Health")).file_descriptor_response.file_descriptor_proto
