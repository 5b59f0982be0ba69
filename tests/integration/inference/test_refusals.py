"""What a pod answers to requests that it cannot or must not compute: the protocol's table, line by line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from onnx import TensorProto, helper

from modelyard.core.channels import aio_channel, fixed_token
from modelyard.core.errors import RemoteError
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import AioInferenceStub, method_path
from support import graphs
from support.identity import Identity
from support.inference_pod import Pod, infer_request, output, row, running_pod
from support.served_registry import ServedRegistry

Request = pb.ModelInferRequest
Code = grpc.StatusCode


def pair() -> bytes:
    """y = a + b; a is float [batch, 2], b float [batch, 2]."""
    floats = (TensorProto.FLOAT, ("batch", 2))
    node = helper.make_node("Add", ["a", "b"], ["y"])
    return graphs.graph([node], {"a": floats, "b": floats}, {"y": floats})


@pytest.fixture
async def pair_pod(registry: ServedRegistry, pod: Pod) -> Pod:
    registry.add("pair", pair())
    await pod.until_ready("pair")
    return pod


def good() -> Request:
    ones = np.ones((1, 2), np.float32)
    return infer_request("pair", {"a": ones, "b": ones})


async def refusal(pod: Pod, request: Request, **call: Any) -> RemoteError:
    with pytest.raises(RemoteError) as raised:
        await pod.infer(request, **call)
    return raised.value


def missing_input(request: Request) -> None:
    del request.inputs[1], request.raw_input_contents[1]


def unknown_input(request: Request) -> None:
    request.inputs[0].name = "c"


def input_twice(request: Request) -> None:
    request.inputs[1].name = "a"


def wrong_datatype(request: Request) -> None:
    request.inputs[0].datatype = "FP64"


def wrong_rank(request: Request) -> None:
    request.inputs[0].shape[:] = [2]


def wrong_dimension(request: Request) -> None:
    request.inputs[0].shape[:] = [1, 3]


def negative_dimension(request: Request) -> None:
    request.inputs[0].shape[:] = [-1, 2]


def short_raw(request: Request) -> None:
    request.raw_input_contents[0] = bytes(7)


def too_few_raw(request: Request) -> None:
    del request.raw_input_contents[1]


def raw_and_contents(request: Request) -> None:
    request.inputs[0].contents.fp32_contents.extend([1, 2])


def no_contents(request: Request) -> None:
    del request.raw_input_contents[:]


def foreign_contents(request: Request) -> None:
    del request.raw_input_contents[:]
    request.inputs[0].contents.int_contents.extend([1, 2])
    request.inputs[1].contents.fp32_contents.extend([1, 2])


def batch_too_large(request: Request) -> None:
    for index in range(2):
        request.inputs[index].shape[:] = [1025, 2]
        request.raw_input_contents[index] = bytes(1025 * 8)


def batch_of_none(request: Request) -> None:
    for index in range(2):
        request.inputs[index].shape[:] = [0, 2]
        request.raw_input_contents[index] = b""


def batches_differ(request: Request) -> None:
    request.inputs[0].shape[:] = [2, 2]
    request.raw_input_contents[0] = bytes(16)


def unknown_output(request: Request) -> None:
    request.outputs.add(name="z")


def reserved_parameter(request: Request) -> None:
    request.parameters["triton_anything"].bool_param = True


def bad_timeout(request: Request) -> None:
    request.parameters["timeout"].string_param = "soon"


def half_a_place(request: Request) -> None:
    request.inputs[0].parameters["shared_memory_region"].string_param = "region0"


def half_a_place_for_an_output(request: Request) -> None:
    request.outputs.add(name="y").parameters["shared_memory_region"].string_param = "region0"


def no_classes(request: Request) -> None:
    request.outputs.add(name="y").parameters["classification"].int64_param = 0


def both_classes_and_a_place(request: Request) -> None:
    parameters = request.outputs.add(name="y").parameters
    parameters["classification"].int64_param = 1
    put_in_region(parameters)


def bad_priority(request: Request) -> None:
    request.parameters["priority"].string_param = "high"


def put_in_region(parameters: Any) -> None:
    parameters["shared_memory_region"].string_param = "region0"
    parameters["shared_memory_byte_size"].int64_param = 8


def no_version(request: Request) -> None:
    request.model_version = "1.0"


def no_alias(request: Request) -> None:
    request.model_version = "canary"


WRONG: list[tuple[Callable[[Request], None], str, str]] = [
    (missing_input, "inputs", "expected the input b FP32 [-1, 2]; it is missing"),
    (unknown_input, "inputs[0].name", "expected an input of the model (a, b); got 'c'"),
    (input_twice, "inputs[1].name", "expected each input once; got 'a' again"),
    (wrong_datatype, "inputs[0].datatype", "input 'a': expected FP32, got 'FP64'"),
    (wrong_rank, "inputs[0].shape", "input 'a': expected [-1, 2], got [2]"),
    (wrong_dimension, "inputs[0].shape", "input 'a': expected [-1, 2], got [1, 3]"),
    (negative_dimension, "inputs[0].contents", "without negative dimensions; got [-1, 2]"),
    (short_raw, "inputs[0].contents", "input 'a': expected 8 bytes for FP32 [1, 2]; got 7"),
    (too_few_raw, "raw_input_contents", "expected an entry for each of the 2 inputs; got 1"),
    (raw_and_contents, "inputs[0].contents", "input 'a': expected raw_input_contents or contents, got both"),
    (no_contents, "inputs[0].contents", "input 'a': expected 2 elements for shape [1, 2]; got 0"),
    (foreign_contents, "inputs[0].contents", "input 'a': expected fp32_contents for FP32; got int_contents"),
    (batch_too_large, "inputs", "expected a batch of 1 to 1024 rows, got 1025"),
    (batch_of_none, "inputs", "expected a batch of 1 to 1024 rows, got 0"),
    (batches_differ, "inputs", "expected the same batch size for every input; got 'a' 2, 'b' 1"),
    (unknown_output, "outputs[0].name", "expected an output of the model (y); got 'z'"),
    (reserved_parameter, "parameters[triton_anything]", "expected no parameter that begins with triton_"),
    (bad_timeout, "parameters[timeout]", 'expected microseconds as an int64, 0 or more; got string_param: "soon"'),
    (
        half_a_place,
        "inputs[0].parameters",
        "expected shared_memory_region (text) together with shared_memory_byte_size",
    ),
    (half_a_place_for_an_output, "outputs[0].parameters", "together with shared_memory_byte_size"),
    (no_classes, "outputs[0].parameters", "expected classification as an int64, 1 or more"),
    (both_classes_and_a_place, "outputs[0].parameters", "can't set both"),
    (bad_priority, "parameters[priority]", "expected int64_param or uint64_param, got string_param"),
    (no_version, "model_version", "expected nothing, a version number or an alias; got '1.0'"),
    (no_alias, "model_version", "expected a version number or an alias of the model (live); got 'canary'"),
]


@pytest.mark.parametrize(("spoil", "field", "text"), WRONG, ids=[case[0].__name__ for case in WRONG])
async def test_a_wrong_request_names_the_field_what_was_expected_and_what_came(
    spoil: Callable[[Request], None], field: str, text: str, pair_pod: Pod
) -> None:
    request = good()
    spoil(request)
    error = await refusal(pair_pod, request)
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "INVALID_FIELD")
    (violation,) = [violation for violation in error.violations if violation.field == field]
    assert text in violation.description
    assert output(await pair_pod.infer(good())) == [[2, 2]]


async def test_everything_wrong_is_named_at_once(pair_pod: Pod) -> None:
    request = good()
    for spoil in (wrong_datatype, wrong_dimension, unknown_output, reserved_parameter):
        spoil(request)
    error = await refusal(pair_pod, request)
    fields = {violation.field for violation in error.violations}
    assert fields == {"inputs[0].datatype", "inputs[0].shape", "outputs[0].name", "parameters[triton_anything]"}


@pytest.mark.parametrize(
    ("model", "version", "resource"),
    [
        ("nobody", "", "models/nobody"),
        ("models/pair", "", "models/models/pair"),
        ("pair", "7", "models/pair/versions/7"),
        ("", "", "models/"),
    ],
)
async def test_an_unknown_model_or_version_is_not_found_by_name(
    model: str, version: str, resource: str, pair_pod: Pod
) -> None:
    request = good()
    request.model_name, request.model_version = model, version
    error = await refusal(pair_pod, request)
    assert (error.code, error.metadata["resource"]) == (Code.NOT_FOUND, resource)
    for call, body in (
        (pair_pod.stub.ModelMetadata, pb.ModelMetadataRequest(name=model, version=version)),
        (pair_pod.stub.ModelConfig, pb.ModelConfigRequest(name=model, version=version)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(body)
        assert raised.value.code() is Code.NOT_FOUND


async def test_a_model_without_the_live_alias_is_not_found_by_default(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("scale", graphs.scale(1), aliases=("candidate",))
    await pod.until_ready("scale", "candidate")
    error = await refusal(pod, infer_request("scale", row(1, 2)))
    assert (error.code, error.metadata["resource"]) == (Code.NOT_FOUND, "models/scale/aliases/live")


async def test_readiness_of_what_is_unknown_is_false_and_no_error(pair_pod: Pod) -> None:
    for name, version in (("nobody", ""), ("pair", "7"), ("pair", "canary")):
        answer = await pair_pod.stub.ModelReady(pb.ModelReadyRequest(name=name, version=version))
        assert not answer.ready
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await pair_pod.stub.ModelReady(pb.ModelReadyRequest(name="pair", version="1.0"))
    assert raised.value.code() is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("name", "version", "field"), [("nobody", "", "name"), ("nobody", "1", "name"), ("pair", "7", "version")]
)
async def test_statistics_of_what_is_unknown_are_a_wrong_argument(
    name: str, version: str, field: str, pair_pod: Pod
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await pair_pod.stub.ModelStatistics(pb.ModelStatisticsRequest(name=name, version=version))
    error = RemoteError.from_rpc(raised.value)
    assert (error.code, error.violations[0].field) == (Code.INVALID_ARGUMENT, field)


async def test_health_of_an_unknown_model_is_not_found(pair_pod: Pod) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await health_pb2_grpc.HealthStub(pair_pod.channel).Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert raised.value.code() is Code.NOT_FOUND


async def test_a_pod_without_shared_memory_knows_no_region_and_takes_none(pair_pod: Pod) -> None:
    given, wanted = good(), good()
    put_in_region(given.inputs[0].parameters)
    put_in_region(wanted.outputs.add(name="y").parameters)
    for request in (given, wanted):
        error = await refusal(pair_pod, request)
        assert (error.code, error.metadata["resource"]) == (Code.NOT_FOUND, "region0")
    stub = pair_pod.stub
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.SystemSharedMemoryRegister(
            pb.SystemSharedMemoryRegisterRequest(name="region0", key="/key", byte_size=8)
        )
    assert raised.value.code() is Code.UNIMPLEMENTED
    assert not (await stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())).regions
    await stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())
    assert "system_shared_memory" not in (await stub.ServerMetadata(pb.ServerMetadataRequest())).extensions


async def test_text_that_is_not_utf_8_is_refused_by_element(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("text", graphs.identity(TensorProto.STRING))
    await pod.until_ready("text")
    error = await refusal(pod, infer_request("text", {"x": np.array([[b"good", b"caf\xe9"]], dtype=object)}))
    assert error.violations[0].description == "input 'x': expected UTF-8; element 1 is not, from byte 3"


async def test_shapes_that_do_not_fit_together_are_the_caller_s_mistake(registry: ServedRegistry, pod: Pod) -> None:
    free = (TensorProto.FLOAT, ("batch", "any"))
    node = helper.make_node("Add", ["a", "b"], ["y"])
    registry.add("sum", graphs.graph([node], {"a": free, "b": free}, {"y": free}))
    await pod.until_ready("sum")
    inputs = {"a": np.ones((1, 2), np.float32), "b": np.ones((1, 3), np.float32)}
    error = await refusal(pod, infer_request("sum", inputs))
    assert (error.code, error.violations[0].field) == (Code.INVALID_ARGUMENT, "inputs")
    assert "onnxruntime" not in error.message.lower()
    assert output(await pod.predict("sum", {"a": inputs["a"], "b": inputs["a"]})) == [[2, 2]]


async def test_an_index_outside_the_table_is_the_caller_s_mistake(registry: ServedRegistry, pod: Pod) -> None:
    numbers = (TensorProto.INT64, ("batch",))
    node = helper.make_node("Gather", ["table", "i"], ["y"])
    content = graphs.graph(
        [node], {"i": numbers}, {"y": (TensorProto.FLOAT, ("batch",))}, {"table": np.float32([5, 6])}
    )
    registry.add("lookup", content)
    await pod.until_ready("lookup")
    assert output(await pod.predict("lookup", {"i": np.array([1])})) == [6]
    error = await refusal(pod, infer_request("lookup", {"i": np.array([9])}))
    assert error.code is Code.INVALID_ARGUMENT


async def test_bytes_that_are_no_message_are_malformed_content(pair_pod: Pod) -> None:
    call = pair_pod.channel.unary_unary(method_path("ModelInfer"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(b"\x0a\xff\xff\xff\xff\x0f")
    error = RemoteError.from_rpc(raised.value)
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "MALFORMED_CONTENT")


async def test_large_messages_pass_up_to_the_limit(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    registry.add("same", graphs.identity(TensorProto.UINT8, ("batch", "any")))
    async with running_pod(registry_address, identity, tmp_path / "pod", max_request_bytes=12_000_000) as pod:
        await pod.until_ready("same")
        content = np.arange(11_000_000, dtype=np.uint8).reshape(11, -1)
        response = await pod.predict("same", {"x": content})
        assert response.raw_output_contents[0] == content.tobytes()
        error = await refusal(pod, infer_request("same", {"x": np.zeros((1, 13_000_000), np.uint8)}))
    assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_LARGE")
    assert error.metadata["limit_bytes"] == "12000000"


async def test_compressed_requests_are_read(pair_pod: Pod) -> None:
    response = await pair_pod.infer(good(), compression=grpc.Compression.Gzip)
    assert output(response) == [[2, 2]]


async def status_of(pod: Pod, token: str | None) -> RemoteError | None:
    async with aio_channel(pod.address, fixed_token(token or "")) as channel:
        try:
            await AioInferenceStub(channel).ModelInfer(good())
        except grpc.aio.AioRpcError as error:
            return RemoteError.from_rpc(error)
    return None


async def test_only_those_who_may_predict_are_answered(pair_pod: Pod, identity: Identity) -> None:
    nobody, worker = await status_of(pair_pod, None), await status_of(pair_pod, identity.token("worker"))
    assert nobody is not None
    assert worker is not None
    assert (nobody.code, worker.code) == (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)
    assert worker.metadata["permission"] == "models.predict"
    assert await status_of(pair_pod, identity.token("predictor")) is None


async def test_unloading_takes_more_than_the_right_to_predict(pair_pod: Pod, identity: Identity) -> None:
    async with aio_channel(pair_pod.address, fixed_token(identity.token("developer"))) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await AioInferenceStub(channel).RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="pair"))
    assert raised.value.code() is Code.PERMISSION_DENIED


async def test_an_open_pod_predicts_for_anybody_and_unloads_for_nobody(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    registry.add("pair", pair())
    async with running_pod(registry_address, identity, tmp_path / "pod", anonymous_predict=True) as pod:
        await pod.until_ready("pair")
        assert await status_of(pod, None) is None
        async with aio_channel(pod.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await AioInferenceStub(channel).RepositoryModelUnload(
                    pb.RepositoryModelUnloadRequest(model_name="pair")
                )
    assert raised.value.code() is Code.PERMISSION_DENIED


async def test_bad_request_travels_as_google_s_message(pair_pod: Pod) -> None:
    request = good()
    wrong_datatype(request)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await pair_pod.stub.ModelInfer(request)
    status = rpc_status.from_call(raised.value)  # type: ignore[arg-type]  # an error of the aio API is a call too
    assert status is not None
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    assert bad_request.field_violations[0].field == "inputs[0].datatype"
