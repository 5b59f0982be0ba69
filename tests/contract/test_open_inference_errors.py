"""What a pod answers to what it cannot do: every line of the protocol's table, by a real pod through a real channel.

One row here is one situation. The finer points of each are in tests/integration/inference.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onnx import TensorProto, helper

from modelyard.core.channels import aio_channel, fixed_token
from modelyard.core.errors import RemoteError
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import AioInferenceStub
from modelyard.oip.tensors import add_input, output_arrays
from support import graphs
from support.grpc_server import serve
from support.identity import Identity
from support.inference_pod import Pod, running_pod
from support.served_registry import ServedRegistry
from support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

Code = grpc.StatusCode
Request = pb.ModelInferRequest
ONES = np.ones((1, 2), np.float32)


def pair() -> bytes:
    """y = a + b, each FP32 [batch, 2]."""
    floats = (TensorProto.FLOAT, ("batch", 2))
    return graphs.graph([helper.make_node("Add", ["a", "b"], ["y"])], {"a": floats, "b": floats}, {"y": floats})


@dataclass
class World:
    """A pod with its registry, and callers with tokens of several roles."""

    pod: Pod
    registry: ServedRegistry
    identity: Identity

    @asynccontextmanager
    async def caller(self, token: str) -> AsyncIterator[AioInferenceStub]:
        async with aio_channel(self.pod.address, fixed_token(token)) as channel:
            yield AioInferenceStub(channel)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """`pair` is served as version 2 and `candidate`; version 1 is not served any more; `gone` is unloaded, `coming` is
    wanted and cannot be fetched yet; `slow` takes its time, one request after the other."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "identity").mkdir()
    identity, registry = Identity.create(folder / "identity"), ServedRegistry()
    registry.add("pair", graphs.scale(1))
    registry.add("pair", pair(), aliases=("live", "candidate"))
    registry.add("headless", pair(), aliases=("candidate",))
    registry.add("gone", pair())
    registry.add("slow", graphs.slow())
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serve(registry.service(), identity))
        settings = {"runners": 1, "queue_size": 2}
        pod = await stack.enter_async_context(running_pod(address, identity, folder / "pod", **settings))
        for model in ("pair", "gone", "slow"):
            await pod.until_ready(model)
        await pod.until_ready("headless", "candidate")
        await pod.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="gone"))
        registry.store.faults.away = True
        registry.add("coming", graphs.scale(3))
        await pod.until_state("coming", 1, "UNAVAILABLE")
        yield World(pod, registry, identity)


def good(model: str = "pair", version: str = "") -> Request:
    request = Request(model_name=model, model_version=version, id="id-1")
    add_input(request, "a", ONES)
    add_input(request, "b", ONES)
    return request


def bent(**changes: Callable[[Request], object]) -> Request:
    """A good request with a change."""
    request = good()
    for change in changes.values():
        change(request)
    return request


def long_request() -> Request:
    """Some hundred milliseconds of work."""
    request = Request(model_name="slow")
    add_input(request, "x", np.ones((48, 700), np.float32))
    return request


async def refusal(call: Awaitable[Any]) -> RemoteError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return RemoteError.from_rpc(raised.value)


@dataclass(frozen=True)
class Row:
    """A situation and its answer."""

    request: Any
    code: grpc.StatusCode
    said: tuple[str, ...] = ()
    """All of them in the message."""
    field: str = ""
    """The field that BadRequest names."""


NOT_FOUND = {
    "unknown model": Row(good("nobody"), Code.NOT_FOUND, ("nobody",)),
    "unknown version": Row(good(version="7"), Code.NOT_FOUND, ("pair", "7")),
    "version that is not loaded": Row(good(version="1"), Code.NOT_FOUND, ("pair", "1")),
    "unloaded model": Row(good("gone"), Code.NOT_FOUND, ("gone",)),
    "model without a live version": Row(good("headless"), Code.NOT_FOUND, ("headless", "live")),
}
NO_VERSION = {
    version: Row(good(version=version), Code.INVALID_ARGUMENT, (version,), "model_version")
    for version in ("1.0", "canary", "-1", "Live", "1 ")
}


def wrong(field_name: str, *said: str, change: Callable[[Request], object]) -> Row:
    return Row(bent(change=change), Code.INVALID_ARGUMENT, said, field_name)


def set_shape(request: Request, *shape: int) -> None:
    request.inputs[0].shape[:] = shape


def large_batch(request: Request) -> None:
    for index in range(2):
        request.inputs[index].shape[:] = [4096, 2]
        request.raw_input_contents[index] = bytes(4096 * 8)


def no_b(request: Request) -> None:
    del request.inputs[1], request.raw_input_contents[1]


BAD_TENSORS = {
    "missing input": wrong("inputs", "b FP32 [-1, 2]", "missing", change=no_b),
    "unknown input": wrong("inputs[0].name", "(a, b)", "'c'", change=lambda r: setattr(r.inputs[0], "name", "c")),
    "input twice": wrong("inputs[1].name", "'a'", "once", change=lambda r: setattr(r.inputs[1], "name", "a")),
    "wrong datatype": wrong(
        "inputs[0].datatype", "'a'", "FP32", "FP64", change=lambda r: setattr(r.inputs[0], "datatype", "FP64")
    ),
    "wrong rank": wrong("inputs[0].shape", "'a'", "[-1, 2]", "[2]", change=lambda r: set_shape(r, 2)),
    "wrong dimension": wrong("inputs[0].shape", "'a'", "[-1, 2]", "[1, 3]", change=lambda r: set_shape(r, 1, 3)),
    "raw too short": wrong(
        "inputs[0].contents", "'a'", "8 bytes", "7", change=lambda r: r.raw_input_contents.__setitem__(0, bytes(7))
    ),
    "raw and contents": wrong(
        "inputs[0].contents", "'a'", "both", change=lambda r: r.inputs[0].contents.fp32_contents.extend([1, 2])
    ),
    "batch over the most": wrong("inputs", "'a', 'b'", "rows", "4096", change=large_batch),
    "unknown output": wrong("outputs[0].name", "(y)", "'z'", change=lambda r: r.outputs.add(name="z")),
    "reserved parameter": wrong(
        "parameters[triton_x]", "triton_", change=lambda r: setattr(r.parameters["triton_x"], "bool_param", True)
    ),
}

INFER_ROWS = {**NOT_FOUND, **NO_VERSION, **BAD_TENSORS}


def check(error: RemoteError, row: Row) -> None:
    assert error.code is row.code
    assert all(text in error.message for text in row.said), error.message
    assert error.reason == ("NOT_FOUND" if row.code is Code.NOT_FOUND else "INVALID_FIELD")
    if row.field:
        assert error.violations[0].field == row.field
        assert all(text in error.violations[0].description for text in row.said)
    assert error.metadata["request_id"]


@pytest.mark.parametrize("row", INFER_ROWS.values(), ids=INFER_ROWS)
async def test_a_request_that_cannot_be_computed(row: Row, world: World) -> None:
    check(await refusal(world.pod.stub.ModelInfer(row.request)), row)


def more_raw(request: Request) -> None:
    request.raw_input_contents.append(b"more")


def free_parameters(request: Request) -> None:
    request.parameters["mine"].double_param = 0.5
    request.parameters["binary_data_output"].bool_param = True
    request.parameters["headers"].string_param = "x"
    request.inputs[0].parameters["mine"].string_param = "x"
    request.outputs.add(name="y").parameters["binary_data"].bool_param = True


@pytest.mark.parametrize("change", [more_raw, free_parameters])
async def test_what_is_ignored(change: Callable[[Request], None], world: World) -> None:
    response = await world.pod.stub.ModelInfer(bent(change=change))
    assert output_arrays(response)["y"].tolist() == [[2, 2]]
    assert response.id == "id-1"


@pytest.mark.parametrize(("name", "version"), [("nobody", ""), ("pair", "7"), ("pair", "canary"), ("gone", "")])
async def test_readiness_of_what_is_not_loaded_is_false_and_no_error(name: str, version: str, world: World) -> None:
    assert not (await world.pod.stub.ModelReady(pb.ModelReadyRequest(name=name, version=version))).ready
    assert (await world.pod.stub.ModelReady(pb.ModelReadyRequest(name="pair", version="candidate"))).ready


@pytest.mark.parametrize(("name", "version"), [("nobody", ""), ("pair", "7"), ("gone", "")])
async def test_metadata_and_configuration_of_what_is_not_loaded_are_not_found(
    name: str, version: str, world: World
) -> None:
    stub = world.pod.stub
    for call in (
        stub.ModelMetadata(pb.ModelMetadataRequest(name=name, version=version)),
        stub.ModelConfig(pb.ModelConfigRequest(name=name, version=version)),
    ):
        error = await refusal(call)
        assert error.code is Code.NOT_FOUND
        assert name in error.message


async def test_statistics_of_an_unknown_model_are_a_wrong_argument(world: World) -> None:
    error = await refusal(world.pod.stub.ModelStatistics(pb.ModelStatisticsRequest(name="nobody")))
    assert (error.code, error.violations[0].field) == (Code.INVALID_ARGUMENT, "name")


async def test_unloading_an_unknown_model_is_fine(world: World) -> None:
    request = pb.RepositoryModelUnloadRequest(model_name="nobody")
    assert await world.pod.stub.RepositoryModelUnload(request) == pb.RepositoryModelUnloadResponse()


async def test_a_full_queue_is_resource_exhausted_and_says_when_to_come_back(world: World) -> None:
    calls = [asyncio.ensure_future(world.pod.infer(long_request())) for _ in range(12)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [result for result in results if isinstance(result, RemoteError)]
    assert refused
    assert {(error.code, error.reason) for error in refused} == {(Code.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED")}
    assert all(error.retry_after for error in refused)
    assert any(isinstance(result, pb.ModelInferResponse) for result in results)


async def test_time_that_is_over_in_the_queue_is_a_deadline_exceeded(world: World) -> None:
    blocker = asyncio.ensure_future(world.pod.infer(long_request()))
    hurried = long_request()
    hurried.parameters["timeout"].int64_param = 1  # microsecond
    error = await refusal(world.pod.stub.ModelInfer(hurried))
    assert (error.code, error.reason) == (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    await blocker


async def test_what_is_being_loaded_is_unavailable_and_says_when_to_come_back(world: World) -> None:
    for call in (
        world.pod.stub.ModelInfer(good("coming")),
        world.pod.stub.ModelInfer(good("coming", "1")),
        world.pod.stub.ModelMetadata(pb.ModelMetadataRequest(name="coming")),
    ):
        error = await refusal(call)
        assert (error.code, error.reason) == (Code.UNAVAILABLE, "UNAVAILABLE")
        assert error.retry_after
        assert "coming" in error.message


async def test_a_pod_that_stops_answers_what_it_has_and_ends_a_stream_as_unavailable(
    identity: Identity, tmp_path: Path
) -> None:
    registry = ServedRegistry()
    registry.add("pair", pair())
    registry.add("slow", graphs.slow())
    async with serve(registry.service(), identity) as address, running_pod(address, identity, tmp_path / "pod") as pod:
        await pod.until_ready("pair")
        await pod.until_ready("slow")
        stream = pod.stub.ModelStreamInfer()
        await stream.write(long_request())
        await stream.write(good())

        async def both_were_read() -> bool:
            """They are read in order, and the second is answered first, inside."""
            (counted,) = (await pod.stub.ModelStatistics(pb.ModelStatisticsRequest(name="pair"))).model_stats
            return counted.inference_count == 1

        await eventually(both_were_read)
        await pod.running.stop()
        replies = [await stream.read(), await stream.read()]
        error = await refusal(stream.read())
    assert [reply.infer_response.model_name for reply in replies] == ["slow", "pair"]
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "UNAVAILABLE")
    assert error.retry_after


@pytest.mark.parametrize(
    ("token", "code", "reason"),
    [
        (lambda identity: "", Code.UNAUTHENTICATED, "TOKEN_MISSING"),
        (lambda identity: "not-a-token", Code.UNAUTHENTICATED, "TOKEN_INVALID"),
        (lambda identity: identity.token("admin", lifetime_s=-60), Code.UNAUTHENTICATED, "TOKEN_EXPIRED"),
        (lambda identity: identity.token("worker"), Code.PERMISSION_DENIED, "PERMISSION_DENIED"),
    ],
    ids=["none", "no token", "expired", "without the right"],
)
async def test_who_may_not_predict_is_told_so_by_a_call_and_a_stream(
    token: Callable[[Identity], str], code: grpc.StatusCode, reason: str, world: World
) -> None:
    async with world.caller(token(world.identity)) as stub:
        error = await refusal(stub.ModelInfer(good()))
        assert (error.code, error.reason) == (code, reason)
        assert good().model_name not in error.message
        stream = stub.ModelStreamInfer(iter([good()]))
        error = await refusal(stream.read())
        assert (error.code, error.reason) == (code, reason)


async def test_changing_a_pod_takes_more_than_the_right_to_predict(world: World) -> None:
    async with world.caller(world.identity.token("predictor")) as stub:
        for call in (
            stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="pair")),
            stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="pair")),
            stub.LogSettings(pb.LogSettingsRequest()),
            stub.TraceSetting(pb.TraceSettingRequest()),
        ):
            assert (await refusal(call)).code is Code.PERMISSION_DENIED


async def test_an_error_inside_a_stream_is_a_reply_and_the_stream_goes_on(world: World) -> None:
    rows = list(INFER_ROWS.values())
    requests = [request for row in rows for request in (row.request, good())]
    for number, request in enumerate(requests):
        request.id = str(number)
    replies = [reply async for reply in world.pod.stub.ModelStreamInfer(iter(requests))]
    assert [reply.infer_response.id for reply in replies] == [str(number) for number in range(len(requests))]
    for row, reply, well in zip(rows, replies[::2], replies[1::2], strict=True):
        assert all(text in reply.error_message for text in row.said)
        assert reply.infer_response == pb.ModelInferResponse(id=reply.infer_response.id)
        assert not well.error_message
        assert output_arrays(well.infer_response)["y"].tolist() == [[2, 2]]


async def test_an_error_ends_the_stream_with_its_code_for_who_asks_for_that(world: World) -> None:
    for row in INFER_ROWS.values():
        stream = world.pod.stub.ModelStreamInfer(
            iter([good(), row.request, good()]), metadata=(("triton_grpc_error", "true"),)
        )
        assert not (await stream.read()).error_message
        check(await refusal(stream.read()), row)


async def test_health_of_an_unknown_service_is_not_found(world: World) -> None:
    health = health_pb2_grpc.HealthStub(world.pod.channel)
    assert (await refusal(health.Check(health_pb2.HealthCheckRequest(service="nobody")))).code is Code.NOT_FOUND
    for known in ("", "pair", "inference.GRPCInferenceService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=known))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
