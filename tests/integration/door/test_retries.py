"""What the door sends a second time, and what it never does."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from modelyard.core.errors import RemoteError
from support.door import Metadata, Yard, call, open_yard

INFER = "/inference.GRPCInferenceService/ModelInfer"
LOAD = "/inference.GRPCInferenceService/RepositoryModelLoad"
GET_JOB = "/modelyard.v1.TrainingService/GetTrainingJob"
CREATE_JOB = "/modelyard.v1.TrainingService/CreateTrainingJob"
LARGER_THAN_KEPT = bytes(9 * 1024 * 1024)


def refused(channel: grpc.Channel, method: str, metadata: Metadata, request: bytes = b"") -> RemoteError:
    """The error of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, request, metadata)
    return RemoteError.from_rpc(caught.value)


def test_a_prediction_that_one_pod_cannot_answer_now_is_answered_by_the_other(channel: grpc.Channel) -> None:
    busy = [("x-behave", "unavailable-pod-a")]
    assert {call(channel, INFER, b"x", busy) for _ in range(20)} == {b"pod-b x"}


def test_a_prediction_that_no_pod_can_answer_fails_with_the_pods_own_words(yard: Yard, channel: grpc.Channel) -> None:
    error = refused(channel, INFER, [("x-behave", "unavailable"), ("x-tag", "nobody")])
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert error.message.endswith("is loading")
    assert all(pod.calls("nobody") for pod in yard.pods)


def test_a_read_is_sent_again(yard: Yard, channel: grpc.Channel) -> None:
    refused(channel, GET_JOB, [("x-behave", "unavailable"), ("x-tag", "read")])
    assert len(yard.gateway.calls("read")) > 1


@pytest.mark.parametrize("method", [CREATE_JOB, LOAD])
def test_a_call_that_changes_something_is_never_sent_again_once_it_was_answered(
    yard: Yard, channel: grpc.Channel, method: str
) -> None:
    refused(channel, method, [("x-behave", "unavailable"), ("x-tag", f"write{method}")])
    assert len([line for upstream in yard.upstreams for line in upstream.calls(f"write{method}")]) == 1


def test_a_caller_cannot_have_the_door_repeat_a_call_that_changes_something(yard: Yard, channel: grpc.Channel) -> None:
    wishes = [("x-envoy-retry-grpc-on", "unavailable"), ("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "9")]
    refused(channel, CREATE_JOB, [("x-behave", "unavailable"), ("x-tag", "wishes"), *wishes])
    assert len(yard.gateway.calls("wishes")) == 1


def test_a_request_too_large_to_keep_is_sent_once(yard: Yard, channel: grpc.Channel) -> None:
    error = refused(channel, INFER, [("x-behave", "unavailable"), ("x-tag", "large")], LARGER_THAN_KEPT)
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert len([line for pod in yard.pods for line in pod.calls("large")]) == 1


def test_a_large_request_that_is_kept_reaches_the_other_pod_whole(channel: grpc.Channel) -> None:
    request = bytes(range(256)) * 30_000
    busy = [("x-behave", "unavailable-pod-a")]
    assert {call(channel, INFER, request, busy) == b"pod-b " + request for _ in range(6)} == {True}


def test_a_stream_that_has_begun_is_not_begun_again(yard: Yard, channel: grpc.Channel) -> None:
    """It ends with an error that its reader sees, and goes on only if the reader asks for the rest."""
    watch: Any = channel.unary_stream("/modelyard.v1.TrainingService/WatchTrainingJob")
    events = watch(b"", metadata=[("x-behave", "breaks"), ("x-tag", "stream")], timeout=60)
    assert [next(events) for _ in range(3)] == [b"gateway 0", b"gateway 1", b"gateway 2"]
    with pytest.raises(grpc.RpcError) as caught:
        next(events)
    assert RemoteError.from_rpc(caught.value).code is grpc.StatusCode.UNAVAILABLE
    assert len(yard.gateway.calls("stream")) == 1


@pytest.mark.parametrize("method", ["GetModel", "SetModelAlias"])
def test_a_service_whose_name_resolves_to_nothing_is_waited_for(method: str) -> None:
    """A scaled-down deployment, or a container that is just being replaced: Envoy has no host at all."""
    with (
        open_yard(PATIENCE_S="0.5", REGISTRY_ADDRESSES="registry.invalid:8502") as yard,
        yard.door.channel() as channel,
    ):
        error = refused(channel, f"/modelyard.v1.ModelService/{method}", [])
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
        assert error.retry_after == 1.0
        assert yard.door.statistic("cluster.registry.upstream_rq_retry") > 1
