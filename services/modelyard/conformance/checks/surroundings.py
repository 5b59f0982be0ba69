"""What stands beside the protocol: grpc.health.v1 and reflection."""

from __future__ import annotations

from typing import Final

import grpc
from grpc_health.v1 import health_pb2

from modelyard.conformance.answers import NOT_FOUND, OK, Answer
from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Level, check
from modelyard.oip.service import SERVICE_NAME

from .model import UNKNOWN

HEALTH: Final = "grpc.health.v1"
REFLECTION: Final = "grpc.reflection"
_LIST_SERVICES: Final = b"\x3a\x01*"
"""ServerReflectionRequest {list_services: "*"}, the same bytes in v1 and v1alpha."""


def _check(probe: Probe, service: str) -> Answer:
    probe.notes.sent = f"Health/Check {service!r}"
    request = health_pb2.HealthCheckRequest(service=service)
    return probe.call_path("/grpc.health.v1.Health/Check", request)


def _expect_serving(probe: Probe, answer: Answer) -> None:
    status = answer.ok(health_pb2.HealthCheckResponse).status
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    probe.notes.expect(status == health_pb2.HealthCheckResponse.SERVING, "SERVING", name)


@check("health.check", Level.TRITON, extension=HEALTH)
def health_check(probe: Probe) -> None:
    """Health/Check of the server as a whole says SERVING. (grpc.health.v1; Triton has it.)"""
    _expect_serving(probe, _check(probe, ""))


@check("health.service", Level.TRITON, extension=HEALTH)
def health_service(probe: Probe) -> None:
    """Health/Check of `inference.GRPCInferenceService` says SERVING. (grpc.health.v1; Triton has it.)"""
    _expect_serving(probe, _check(probe, SERVICE_NAME))


@check("health.unknown", Level.RECOMMENDED, extension=HEALTH)
def health_unknown(probe: Probe) -> None:
    """Health/Check of an unknown service is NOT_FOUND. (grpc.health.v1; Triton says SERVING to any name.)"""
    _check(probe, UNKNOWN).has_code(NOT_FOUND)


@check("health.model", Level.RECOMMENDED, extension=HEALTH)
def health_model(probe: Probe) -> None:
    """Health/Check of a served model's name says SERVING. (Load balancers that watch one model need it.)"""
    _expect_serving(probe, _check(probe, probe.target.model))


@check("health.watch", Level.RECOMMENDED, extension=HEALTH)
def health_watch(probe: Probe) -> None:
    """Health/Watch says at once what Health/Check says. (grpc.health.v1; Triton has no Watch.)"""
    probe.notes.sent = "Health/Watch ''"
    call = probe.watch("/grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest())
    try:
        answer = Answer(probe.notes, OK, payload=next(call))
    except grpc.RpcError as error:
        answer = Answer(probe.notes, error.code(), error.details() or "")
    finally:
        call.cancel()
    _expect_serving(probe, answer)


@check("health.reflection", Level.RECOMMENDED, extension=REFLECTION)
def reflection(probe: Probe) -> None:
    """Reflection lists the service, so that grpcurl and the like need no proto. (grpc.reflection; Triton has none.)"""
    for version in ("v1", "v1alpha"):
        probe.notes.sent = f"grpc.reflection.{version}: list services"
        path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        answer = probe.stream_path(path, [_LIST_SERVICES])
        if answer.code is OK:
            break
    listed = SERVICE_NAME.encode() in b"".join(answer.payloads)
    probe.notes.expect(answer.code is OK and listed, f"{SERVICE_NAME} listed", answer, answer.code)
