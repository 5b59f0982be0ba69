"""The one listener: codec, TLS, gRPC-Web, CORS, request ids, what is trusted, what is logged."""

from __future__ import annotations

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
# What only proxies say. A client that says it anyway is not believed.
_UNTRUSTED_HEADERS = (
    "forwarded", "x-envoy-external-address", "x-forwarded-client-cert", "x-forwarded-host", "x-forwarded-port",
    "x-real-ip",
)  # fmt: skip


def listener(settings: DoorSettings) -> dict[str, Any]:
    """The listener on the door's port."""
    files = settings.tls_certificate_file, settings.tls_key_file
    tls = (files[0], files[1]) if files[0] and files[1] else None
    return http.listener(NAME, parse_address(settings.listen).to_envoy(), _connection_manager(settings), tls)


def _connection_manager(settings: DoorSettings) -> dict[str, Any]:
    more: dict[str, Any] = {
        # A peer's address is the connection's; nothing about it is taken from headers.
        "use_remote_address": True,
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
    return http.connection_manager(NAME, _virtual_host(settings), _filters(), idle_s=settings.unary_idle_s, **more)


def _virtual_host(settings: DoorSettings) -> dict[str, Any]:
    host: dict[str, Any] = {
        "name": NAME,
        "domains": ["*"],
        "routes": routes(settings),
        "request_headers_to_remove": list(_UNTRUSTED_HEADERS),
        "request_headers_to_add": [
            {
                "header": {"key": "x-forwarded-for", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
    }
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
