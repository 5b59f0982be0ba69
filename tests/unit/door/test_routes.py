"""The routing table against the API itself: every method of every service, found in the descriptors."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor

from modelyard.core.permissions import METHOD_TABLE
from modelyard.door.routes import PUBLIC_SERVICES, routes
from modelyard.door.settings import DoorSettings
from modelyard.v1 import (
    access_service_pb2,
    artifact_service_pb2,
    dataset_service_pb2,
    model_service_pb2,
    pod_service_pb2,
    training_service_pb2,
    worker_service_pb2,
)

INTERNAL = {
    "modelyard.v1.WorkerService", "modelyard.v1.ModelService/WatchModels", "modelyard.v1.PodService/ReportPod",
}  # fmt: skip
# Part of the protocol and of its clients; a pod answers UNIMPLEMENTED today, and the door needs no change tomorrow.
ANSWERED_LATER = {"/inference.GRPCInferenceService/ModelStreamInfer"}
READS = ("Get", "List", "Read", "Watch", "Explain")

METHODS: list[MethodDescriptor] = [
    method
    for module in (
        access_service_pb2, artifact_service_pb2, dataset_service_pb2, model_service_pb2, pod_service_pb2,
        training_service_pb2, worker_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]  # fmt: skip


def route_of(path: str) -> dict[str, Any]:
    """The route that Envoy would take: the first that matches."""
    for route in routes(DoorSettings()):
        match = route["match"]
        if match.get("path") == path or ("prefix" in match and path.startswith(match["prefix"])):
            return route
    raise AssertionError("the last route matches everything")


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


@pytest.mark.parametrize("method", METHODS, ids=path_of)
def test_every_method_is_offered_unless_it_is_internal(method: MethodDescriptor) -> None:
    service = method.containing_service.full_name
    internal = bool({service, f"{service}/{method.name}"} & INTERNAL)
    assert ("direct_response" in route_of(path_of(method))) == internal


@pytest.mark.parametrize("method", METHODS, ids=path_of)
def test_only_reads_are_sent_again_after_an_answer(method: MethodDescriptor) -> None:
    route = route_of(path_of(method))
    if "direct_response" in route:
        return
    conditions = route["route"]["retry_policy"]["retry_on"].split(",")
    assert ("unavailable" in conditions) == method.name.startswith(READS)
    assert {"connect-failure", "refused-stream"} <= set(conditions)
    assert not {"5xx", "gateway-error", "retriable-4xx"} & set(conditions)


@pytest.mark.parametrize("method", METHODS, ids=path_of)
def test_only_streams_may_be_silent_for_ever(method: MethodDescriptor) -> None:
    route = route_of(path_of(method))
    if "direct_response" in route:
        return
    streaming = method.client_streaming or method.server_streaming
    assert (route["route"]["idle_timeout"] == "0s") == streaming
    assert route["route"]["timeout"] == "0s"


def test_every_method_that_somebody_may_call_is_offered_or_internal() -> None:
    """The table of permissions knows the services that are not ours too: inference, health, reflection."""
    hidden = {path for path in METHOD_TABLE if "direct_response" in route_of(path)}
    assert hidden == {path for path in METHOD_TABLE if path.startswith("/modelyard.v1.WorkerService/")} | {
        "/modelyard.v1.ModelService/WatchModels",
        "/modelyard.v1.PodService/ReportPod",
    }


def test_every_method_with_a_rule_of_its_own_exists() -> None:
    named = {f"/{s.name}/{m}" for s in PUBLIC_SERVICES for m in (*s.repeatable, *s.streams, *s.hidden)}
    assert named - ANSWERED_LATER <= set(METHOD_TABLE)


def test_loading_and_unloading_models_is_not_taken_for_a_prediction() -> None:
    for method in ("RepositoryModelLoad", "RepositoryModelUnload", "ModelStreamInfer"):
        retries = route_of(f"/inference.GRPCInferenceService/{method}")["route"]["retry_policy"]["retry_on"]
        assert "unavailable" not in retries


@pytest.mark.parametrize(
    "path", ["/modelyard.v1.ModelServiceX/Get", "/modelyard.v1.ModelService", "/", "/grpc.health.v1"]
)
def test_a_name_that_only_looks_like_a_service_is_unknown(path: str) -> None:
    assert route_of(path)["direct_response"]["status"] == 404
