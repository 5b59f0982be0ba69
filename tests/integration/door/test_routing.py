"""Which upstream answers what, and what nobody answers."""

from __future__ import annotations

import queue
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard.core.errors import RemoteError
from support.door import Yard, call, unary

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("method", "upstream"),
    [
        ("/modelyard.v1.TrainingService/CreateTrainingJob", "gateway"),
        ("/modelyard.v1.TrainingService/GetTrainingJob", "gateway"),
        ("/modelyard.v1.AccessService/CreateToken", "gateway"),
        ("/modelyard.v1.ModelService/GetModel", "registry"),
        ("/modelyard.v1.ModelService/SetModelAlias", "registry"),
        ("/modelyard.v1.DatasetService/CreateDataset", "registry"),
        ("/modelyard.v1.ArtifactService/StartUpload", "registry"),
        ("/inference.GRPCInferenceService/ModelInfer", "pod"),
        ("/inference.GRPCInferenceService/RepositoryModelLoad", "pod"),
    ],
)
def test_a_call_goes_to_the_service_that_its_name_says(channel: grpc.Channel, method: str, upstream: str) -> None:
    assert call(channel, method, b"hello").decode().startswith(upstream)


@pytest.mark.parametrize(
    "method",
    [
        "/modelyard.v1.WorkerService/ClaimTrainingJob",
        "/modelyard.v1.ModelService/WatchModels",
        "/modelyard.v2.TrainingService/GetTrainingJob",
        "/unheard.Of/Anything",
        "/",
    ],
)
def test_internal_and_unknown_methods_are_unimplemented_and_reach_nobody(
    yard: Yard, channel: grpc.Channel, method: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, metadata=[("x-tag", "unknown")])
    error = RemoteError.from_rpc(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")
    assert "offers no such method" in error.message
    assert [line for upstream in yard.upstreams for line in upstream.calls("unknown")] == []


def test_predictions_are_spread_over_the_pods(channel: grpc.Channel) -> None:
    answers = {call(channel, "/inference.GRPCInferenceService/ModelInfer").decode() for _ in range(50)}
    assert answers == {"pod-a hello", "pod-b hello"}


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_is_the_gateways(channel: grpc.Channel, version: str) -> None:
    stream: Any = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
    assert list(stream(iter([b"list"]), timeout=30)) == [b"gateway list"]


def test_health_is_the_gateways(channel: grpc.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_server_stream_arrives_whole_and_in_order(channel: grpc.Channel) -> None:
    watch: Any = channel.unary_stream("/modelyard.v1.TrainingService/WatchTrainingJob")
    answers = list(watch(b"", metadata=[("x-count", "500")], timeout=60))
    assert answers == [b"gateway %d" % number for number in range(500)]


def test_both_directions_of_a_stream_run_at_the_same_time(channel: grpc.Channel) -> None:
    """The next message is sent only when the one before it has been answered."""
    questions: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    stream: Any = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    answers = stream(iter(questions.get, None), timeout=30)
    for number in range(5):
        questions.put(b"%d" % number)
        assert next(answers).rpartition(b" ")[2] == b"%d" % number
    questions.put(None)
    assert list(answers) == []


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("/inference.GRPCInferenceService/ModelInfer", id="beyond what is kept for a retry"),
        pytest.param("/modelyard.v1.DatasetService/CreateDataset", id="never kept"),
    ],
)
def test_a_message_of_20_megabytes_passes_both_ways(channel: grpc.Channel, method: str) -> None:
    request = bytes(range(256)) * 80_000
    assert call(channel, method, request).partition(b" ")[2] == request


EITHER_WAY = pytest.mark.parametrize(
    "method", ["/modelyard.v1.ModelService/GetModel", "/inference.GRPCInferenceService/ModelInfer"]
)


@EITHER_WAY
def test_the_callers_token_passes_and_its_claims_to_be_a_proxy_do_not(channel: grpc.Channel, method: str) -> None:
    sent = [
        ("authorization", "Bearer abc.def"),
        ("forwarded", "for=10.1.1.1"),
        ("x-forwarded-for", "10.1.1.1"),
        ("x-forwarded-host", "elsewhere"),
        ("x-real-ip", "10.1.1.1"),
        ("x-envoy-external-address", "10.1.1.1"),
        ("triton_grpc_error", "true"),
        ("x-request-id", "request-7"),
        ("traceparent", TRACEPARENT),
        ("tracestate", "vendor=1"),
        ("x-behave", "metadata"),
    ]
    text = call(channel, method, metadata=sent).decode()
    received = dict(line.split(": ", 1) for line in text.splitlines())
    assert received["authorization"] == "Bearer abc.def"
    assert received["x-request-id"] == "request-7"
    assert (received["traceparent"], received["tracestate"]) == (TRACEPARENT, "vendor=1")
    assert received["triton_grpc_error"] == "true"
    assert received["x-forwarded-for"] == "127.0.0.1"
    assert not [key for key in received if key.startswith("x-envoy") or key in {"forwarded", "x-forwarded-host"}]
    assert "x-real-ip" not in received


@EITHER_WAY
def test_a_call_without_a_request_id_gets_one_and_is_told_it(channel: grpc.Channel, method: str) -> None:
    answer, outcome = unary(channel, method).with_call(b"", metadata=[("x-behave", "metadata")], timeout=30)
    told = dict(outcome.initial_metadata())["x-request-id"]
    assert told
    assert f"x-request-id: {told}" in answer.decode()
