"""How the cluster's services are, asked through the door (grpc.health.v1)."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .connection import Connection

PUBLIC_SERVICES = (
    "modelyard.v1.TrainingService",
    "modelyard.v1.AccessService",
    "modelyard.v1.ModelService",
    "modelyard.v1.PodService",
    "modelyard.v1.DatasetService",
    "modelyard.v1.ArtifactService",
    "inference.GRPCInferenceService",
)
_TIMEOUT_S = 5.0


def service_states(connection: Connection) -> dict[str, str]:
    """`SERVING`, `NOT_SERVING`, or the error's code, by service name; raises ConnectionError if nobody answers."""
    stub = health_pb2_grpc.HealthStub(connection.channel)
    states = {name: _state(stub, name) for name in PUBLIC_SERVICES}
    if set(states.values()) <= {"UNAVAILABLE", "DEADLINE_EXCEEDED"}:
        raise ConnectionError(f"no cluster answers at {connection.endpoint.address}")
    return states


def _state(stub: health_pb2_grpc.HealthStub, name: str) -> str:
    try:
        request = health_pb2.HealthCheckRequest(service=name)
        answer = stub.Check(request, timeout=_TIMEOUT_S)  # type: ignore[attr-defined]  # the stub sets it on itself
    except grpc.RpcError as error:
        call: grpc.Call = error  # type: ignore[assignment]  # what a stub raises is a call too
        return call.code().name
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
