"""Where Envoy listens: codec, TLS, gRPC-Web, CORS, request ids, what is trusted, what is logged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.envoy import http
from modelyard.envoy.addresses import parse_address
from modelyard.envoy.http import TYPES
from modelyard.envoy.replies import local_replies

from .routes import routes
from .settings import DoorSettings

NAME = "door"

_ALLOWED_HEADERS = "authorization,content-type,grpc-timeout,traceparent,tracestate,x-grpc-web,x-request-id,x-user-agent"
_EXPOSED_HEADERS = "grpc-message,grpc-status,grpc-status-details-bin,x-request-id"
_PROXY_PROTOCOL = {
    "name": "envoy.filters.listener.proxy_protocol",
    "typed_config": {"@type": f"{TYPES}.filters.listener.proxy_protocol.v3.ProxyProtocol"},
}
# What only proxies say. A client that says it anyway is not believed.
_UNTRUSTED_HEADERS = (
    "forwarded", "x-envoy-external-address", "x-forwarded-client-cert", "x-forwarded-host", "x-forwarded-port",
    "x-real-ip",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sockets:
    """Where Envoy listens behind the direct lane."""

    calls: Path
    """For HTTP/2 from there, which says in x-forwarded-for whose a call is."""
    tunnels: Path
    """For connections that do not speak it, each with a line of the PROXY protocol before it."""


def listeners(settings: DoorSettings, behind: Sockets | None) -> list[dict[str, Any]]:
    """The listener on the door's port, or those behind the direct lane."""
    if behind is None:
        files = settings.tls_certificate_file, settings.tls_key_file
        tls = (files[0], files[1]) if files[0] and files[1] else None
        return [http.listener(NAME, parse_address(settings.listen).to_envoy(), _connection_manager(settings), tls)]
    return [
        http.listener("calls", _private(behind.calls), _connection_manager(settings, is_behind=True)),
        http.listener(
            "tunnels", _private(behind.tunnels), _connection_manager(settings), listener_filters=[_PROXY_PROTOCOL]
        ),
    ]


def _private(socket: Path) -> dict[str, Any]:
    return {"pipe": {"path": str(socket), "mode": 0o600}}


def _connection_manager(settings: DoorSettings, *, is_behind: bool = False) -> dict[str, Any]:
    """`is_behind`: the door's own server is the client, and has seen to what is trusted."""
    more: dict[str, Any] = {
        # A peer's address is the connection's; nothing about it is taken from headers.
        "use_remote_address": not is_behind,
        "skip_xff_append": is_behind,
        "xff_num_trusted_hops": 0,
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "request_id_extension": {
            "typed_config": {"@type": f"{TYPES}.request_id.uuid.v3.UuidRequestIdConfig", "pack_trace_reason": False}
        },
        "local_reply_config": local_replies(),
    }
    if settings.access_log:
        upstream = {"attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "upstream": "%UPSTREAM_HOST%"}
        more["access_log"] = [http.access_log(upstream)]
    host = _virtual_host(settings, is_behind=is_behind)
    return http.connection_manager(NAME, host, _filters(), idle_s=settings.unary_idle_s, **more)


def _virtual_host(settings: DoorSettings, *, is_behind: bool) -> dict[str, Any]:
    host: dict[str, Any] = {"name": NAME, "domains": ["*"], "routes": routes(settings)}
    if not is_behind:
        host["request_headers_to_remove"] = list(_UNTRUSTED_HEADERS)
        host["request_headers_to_add"] = [
            {
                "header": {"key": "x-forwarded-for", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ]
    if settings.cors_origins:
        host["typed_per_filter_config"] = {"envoy.filters.http.cors": _cors(settings.cors_origins)}
    return host


def _cors(origins: tuple[str, ...]) -> dict[str, Any]:
    matches = [{"safe_regex": {"regex": ".*"}}] if "*" in origins else [{"exact": origin} for origin in origins]
    return {
        "@type": f"{TYPES}.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": matches,
        "allow_methods": "POST",
        "allow_headers": _ALLOWED_HEADERS,
        "expose_headers": _EXPOSED_HEADERS,
        "max_age": "86400",
    }


def _filters() -> list[dict[str, Any]]:
    return [
        http.http_filter("cors", "cors.v3.Cors"),
        http.http_filter("grpc_web", "grpc_web.v3.GrpcWeb"),
        http.router(),
    ]
