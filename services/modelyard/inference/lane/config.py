"""Envoy's configuration for a pod: ModelInfer to the interpreter inside it, everything else to gRPC's own server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modelyard.envoy import http
from modelyard.envoy.addresses import parse_address
from modelyard.envoy.http import TYPES
from modelyard.envoy.replies import local_replies
from modelyard.inference.settings import InferenceSettings

NAME = "pod"
APPLICATION = "modelyard.inference.lane.hosted:application"

_GRPC = "grpc"
_HOST = "pyvoy"
_CROSSING = "crossing"
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_STREAMS = ("/inference.GRPCInferenceService/ModelStreamInfer", "/grpc.health.v1.Health/Watch")
_UNARY_IDLE_S = 3600.0
# What is not like this, gRPC's own server answers as it likes.
_IS_GRPC = {"name": "content-type", "string_match": {"safe_regex": {"regex": r"application/grpc([+;].*)?"}}}
_TAKES_TRAILERS = {"name": "te", "string_match": {"exact": "trailers"}}
_RUNTIME = {
    # Envoy closes a connection on which most of some 500 calls were cancelled within a second. Here that would be the
    # door's connection, with everybody's calls on it. The door itself keeps this defence against its own callers.
    "overload.premature_reset_total_stream_count": 2**31 - 1,
}
_ROUTE_FILTER = "type.googleapis.com/envoy.config.route.v3.FilterConfig"


def bootstrap(
    settings: InferenceSettings, host_module: Path, crossing_module: Path, admin_socket: Path, grpc_socket: Path
) -> dict[str, Any]:
    """The configuration of one pod. `host_module`: pyvoy's library. `crossing_module`: built from `native/`."""
    more: dict[str, Any] = {
        "generate_request_id": False,
        "use_remote_address": False,
        "skip_xff_append": True,
        "local_reply_config": local_replies(),
    }
    if settings.access_log:
        more["access_log"] = [http.access_log({})]
    host = {"name": NAME, "domains": ["*"], "routes": _routes()}
    filters = [_python(host_module), _module(_CROSSING, crossing_module), http.router()]
    manager = http.connection_manager(NAME, host, filters, idle_s=_UNARY_IDLE_S, **more)
    address = parse_address(settings.listen, lowest_port=0).to_envoy()
    listener = http.listener(NAME, address, manager, settings.tls)
    return http.bootstrap(NAME, admin_socket, [listener], [_grpc(grpc_socket)], settings.max_connections, _RUNTIME)


def _python(module: Path) -> dict[str, Any]:
    """The filter that hosts the interpreter. No route enables it: it starts the application, and ends it."""
    application = {"app": APPLICATION, "interface": "asgi", "worker_threads": 1, "lifespan": True}
    value = {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": json.dumps(application)}
    return _module(_HOST, module, filter_config=value)


def _module(name: str, library: Path, **config: Any) -> dict[str, Any]:
    """A filter out of a library. It answers every call that it gets; only a route that enables it leads there."""
    return {
        "name": name,
        "disabled": True,
        "typed_config": {
            "@type": f"{TYPES}.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {"module": {"local": {"filename": str(library)}}},
            "filter_name": name,
            **config,
        },
    }


def _routes() -> list[dict[str, Any]]:
    # The lane keeps the deadline itself. Envoy would end a call between the answer's headers and its trailers now and
    # then, which its caller sees as INTERNAL.
    infer = _route({"path": _INFER, "headers": [_IS_GRPC, _TAKES_TRAILERS]}, deadline={})
    infer["typed_per_filter_config"] = {_CROSSING: {"@type": _ROUTE_FILTER, "disabled": False, "config": {}}}
    return [infer, *(_route({"path": path}, stream=True) for path in _STREAMS), _route({"prefix": "/"})]


# The caller's own deadline (grpc-timeout) ends the call here too.
_CALLERS_DEADLINE = {"max_stream_duration": {"grpc_timeout_header_max": "0s"}}


def _route(
    match: dict[str, Any], *, stream: bool = False, deadline: dict[str, Any] = _CALLERS_DEADLINE
) -> dict[str, Any]:
    return {
        "match": match,
        "route": {
            "cluster": _GRPC,
            "timeout": "0s",
            **deadline,
            "idle_timeout": "0s" if stream else f"{_UNARY_IDLE_S}s",
        },
    }


def _grpc(socket: Path) -> dict[str, Any]:
    """The gRPC server in the same interpreter."""
    return {
        "name": _GRPC,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": http.CIRCUIT_BREAKERS,
        "per_connection_buffer_limit_bytes": http.BUFFER_BYTES,
        "typed_extension_protocol_options": http.http2_upstream(tcp=False),
        "load_assignment": http.endpoints(_GRPC, [{"pipe": {"path": str(socket)}}]),
    }
