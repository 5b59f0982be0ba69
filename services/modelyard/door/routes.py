"""Which call goes where, and which may be sent a second time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelyard.core.errors import Unimplemented
from modelyard.envoy.replies import details_header

from .settings import DoorSettings
from .upstreams import GATEWAY, INFERENCE, REGISTRY

UNKNOWN = Unimplemented("the door offers no such method; `grpcurl HOST:PORT list` shows what it offers")


@dataclass(frozen=True, slots=True)
class PublicService:
    """A gRPC service that the door offers."""

    name: str
    """Full name."""
    upstream: str
    repeatable: tuple[str, ...] = ()
    """Methods that change nothing: they are sent again even if an upstream may have seen them."""
    streams: tuple[str, ...] = ()
    """Methods that may be silent for hours."""
    hidden: tuple[str, ...] = ()
    """Internal methods, answered as if they did not exist."""


PUBLIC_SERVICES = (
    PublicService(
        "inference.GRPCInferenceService",
        INFERENCE,
        repeatable=(
            "ModelInfer", "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig",
            "ModelStatistics", "RepositoryIndex",
        ),
        streams=("ModelStreamInfer",),
    ),
    PublicService(
        "modelyard.v1.TrainingService",
        GATEWAY,
        repeatable=(
            "GetTrainingJob", "ListTrainingJobs", "WatchTrainingJob", "ExplainTrainingJob", "ListTrainingAttempts",
            "ListTrainingProgress", "ListQueues", "ListWorkers",
        ),
        streams=("WatchTrainingJob",),
    ),
    PublicService(
        "modelyard.v1.AccessService", GATEWAY, repeatable=("GetCaller", "ListTokens", "GetTenant", "ListTenants")
    ),
    PublicService(
        "modelyard.v1.ModelService",
        REGISTRY,
        repeatable=(
            "GetModel", "ListModels", "GetModelVersion", "ListModelVersions", "GetModelAlias", "ListModelAliasChanges",
            "GetShadowReport",
        ),
        streams=("PromoteModelVersion",),
        hidden=("WatchModels",),
    ),
    PublicService("modelyard.v1.DatasetService", REGISTRY, repeatable=("GetDataset", "ListDatasets")),
    PublicService("modelyard.v1.PodService", REGISTRY, repeatable=("ListPods",), hidden=("ReportPod",)),
    PublicService(
        "modelyard.v1.ArtifactService",
        REGISTRY,
        repeatable=("GetUpload", "GetBlob", "ReadBlob"),
        streams=("WriteUpload", "ReadBlob"),
    ),
    PublicService("grpc.health.v1.Health", GATEWAY, repeatable=("Check", "List", "Watch"), streams=("Watch",)),
    PublicService("grpc.reflection.v1.ServerReflection", GATEWAY, streams=("ServerReflectionInfo",)),
    PublicService("grpc.reflection.v1alpha.ServerReflection", GATEWAY, streams=("ServerReflectionInfo",)),
)  # fmt: skip

# Retries that are safe for everything: the upstream has seen nothing, or has said that it did nothing.
_UNSEEN = "connect-failure,refused-stream,reset-before-request"
# For what is repeatable also: the upstream vanished before its answer began, answered UNAVAILABLE, or, caught by the
# call in the last moment of its life, CANCELLED (a caller's own cancel ends the call here and is never retried).
_REPEATABLE = f"{_UNSEEN},reset,unavailable,cancelled"
_FIRST_BACK_OFF_S = 0.025
_LONGEST_BACK_OFF_S = 0.5


def routes(settings: DoorSettings) -> list[dict[str, Any]]:
    """Envoy's routes, first match first."""
    hidden = [f"/{service.name}/{method}" for service in PUBLIC_SERVICES for method in service.hidden]
    offered = [route for service in PUBLIC_SERVICES for route in _service_routes(service, settings)]
    return [*(_unknown({"path": path}) for path in hidden), *offered, _unknown({"prefix": "/"})]


def _service_routes(service: PublicService, settings: DoorSettings) -> list[dict[str, Any]]:
    special = dict.fromkeys((*service.repeatable, *service.streams))
    found = [
        _route(
            {"path": f"/{service.name}/{method}"},
            service.upstream,
            settings,
            repeatable=method in service.repeatable,
            stream=method in service.streams,
        )
        for method in special
    ]
    rest = _route({"prefix": f"/{service.name}/"}, service.upstream, settings, repeatable=False, stream=False)
    return [*found, rest]


def _route(
    match: dict[str, str], upstream: str, settings: DoorSettings, *, repeatable: bool, stream: bool
) -> dict[str, Any]:
    route: dict[str, Any] = {
        "match": match,
        "route": {
            "cluster": upstream,
            "timeout": "0s",
            # The caller's own deadline (grpc-timeout) is the only one, and it counts waiting and retries too.
            "max_stream_duration": {"grpc_timeout_header_max": "0s"},
            "idle_timeout": "0s" if stream else f"{settings.unary_idle_s}s",
            "retry_policy": _retry_policy(settings, repeatable=repeatable),
        },
    }
    if repeatable:
        route["request_body_buffer_limit"] = settings.max_message_bytes
    return route


def _retry_policy(settings: DoorSettings, *, repeatable: bool) -> dict[str, Any]:
    return {
        "retry_on": _REPEATABLE if repeatable else _UNSEEN,
        "num_retries": _retries(settings.patience_s),
        "retry_back_off": {"base_interval": f"{_FIRST_BACK_OFF_S}s", "max_interval": f"{_LONGEST_BACK_OFF_S}s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 5,
    }


def _retries(patience_s: float) -> int:
    """How many retries last `patience_s` in the mean: a pause is random between nothing and the current maximum."""
    spent, pauses, pause = 0.0, 0, _FIRST_BACK_OFF_S
    while spent < patience_s:
        spent += pause / 2
        pause = min(2 * pause, _LONGEST_BACK_OFF_S)
        pauses += 1
    return pauses


def _unknown(match: dict[str, str]) -> dict[str, Any]:
    """Envoy turns a 404 into UNIMPLEMENTED when a gRPC call gets it, with the body as its text."""
    return {
        "match": match,
        "direct_response": {"status": 404, "body": {"inline_string": UNKNOWN.message}},
        "response_headers_to_add": [details_header(UNKNOWN)],
    }
