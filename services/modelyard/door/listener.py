"""The one listener: codec, TLS, gRPC-Web, CORS, request ids, what is trusted, what is logged."""

from __future__ import annotations

from typing import Any

from .addresses import parse_address
from .replies import local_replies
from .routes import routes
from .settings import DoorSettings
from .upstreams import BUFFER_BYTES, CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES

STAT_PREFIX = "door"

_TYPES = "type.googleapis.com/envoy.extensions"
_ALLOWED_HEADERS = "authorization,content-type,grpc-timeout,traceparent,tracestate,x-grpc-web,x-request-id,x-user-agent"
_EXPOSED_HEADERS = "grpc-message,grpc-status,grpc-status-details-bin,x-request-id"
# What only proxies say. A client that says it anyway is not believed.
_UNTRUSTED_HEADERS = (
    "forwarded", "x-envoy-external-address", "x-forwarded-client-cert", "x-forwarded-host", "x-forwarded-port",
    "x-real-ip",
)  # fmt: skip


def listener(settings: DoorSettings) -> dict[str, Any]:
    """The listener on the door's port."""
    chain: dict[str, Any] = {"filters": [_connection_manager(settings)]}
    if settings.tls_certificate_file is not None:
        chain["transport_socket"] = _tls(settings)
    return {
        "name": "door",
        "address": parse_address(settings.listen).to_envoy(),
        # Two doors on one port are a mistake, not a feature. One socket for all worker threads, then, and connections
        # dealt out evenly: gRPC clients open few and keep them.
        "enable_reuse_port": False,
        "connection_balance_config": {"exact_balance": {}},
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": [chain],
    }


def _connection_manager(settings: DoorSettings) -> dict[str, Any]:
    config = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": STAT_PREFIX,
        "codec_type": "AUTO",
        "route_config": {"name": "door", "virtual_hosts": [_virtual_host(settings)], "validate_clusters": True},
        "http_filters": _filters(),
        "http2_protocol_options": {
            "max_concurrent_streams": 10_000,
            "initial_stream_window_size": STREAM_WINDOW_BYTES,
            "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
            # A client that vanished without a word is noticed within a minute and a half.
            "connection_keepalive": {"interval": "60s", "timeout": "20s"},
        },
        "common_http_protocol_options": {"idle_timeout": "3600s"},
        "request_headers_timeout": "10s",
        "stream_idle_timeout": f"{settings.unary_idle_s}s",
        "drain_timeout": "1s",
        # A peer's address is the connection's; nothing about it is taken from headers.
        "use_remote_address": True,
        "xff_num_trusted_hops": 0,
        # Envoy obeys x-envoy-* headers (retries, timeouts) of "internal" peers, by default all private addresses. Here
        # nobody is one: an empty list would mean the default, so this is an address that no peer has (RFC 5737).
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 32}]},
        "server_header_transformation": "PASS_THROUGH",
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "request_id_extension": {
            "typed_config": {"@type": f"{_TYPES}.request_id.uuid.v3.UuidRequestIdConfig", "pack_trace_reason": False}
        },
        "local_reply_config": local_replies(),
    }
    if settings.access_log:
        config["access_log"] = [_access_log()]
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def _virtual_host(settings: DoorSettings) -> dict[str, Any]:
    host: dict[str, Any] = {
        "name": "door",
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
        "@type": f"{_TYPES}.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": matches,
        "allow_methods": "POST",
        "allow_headers": _ALLOWED_HEADERS,
        "expose_headers": _EXPOSED_HEADERS,
        "max_age": "86400",
    }


def _filters() -> list[dict[str, Any]]:
    names = {"cors": "cors.v3.Cors", "grpc_web": "grpc_web.v3.GrpcWeb", "router": "router.v3.Router"}
    settings = {"router": {"suppress_envoy_headers": True}}
    return [
        {
            "name": f"envoy.filters.http.{name}",
            "typed_config": {"@type": f"{_TYPES}.filters.http.{message}", **settings.get(name, {})},
        }
        for name, message in names.items()
    ]


def _tls(settings: DoorSettings) -> dict[str, Any]:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": str(settings.tls_certificate_file)},
                        "private_key": {"filename": str(settings.tls_key_file)},
                    }
                ],
            },
        },
    }


def _access_log() -> dict[str, Any]:
    fields = {
        "time": "%START_TIME%",
        "method": "%REQ(:PATH)%",
        "protocol": "%PROTOCOL%",
        "http_status": "%RESPONSE_CODE%",
        "grpc_status": "%GRPC_STATUS%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "ms": "%DURATION%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "bytes_in": "%BYTES_RECEIVED%",
        "bytes_out": "%BYTES_SENT%",
        "upstream": "%UPSTREAM_HOST%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "user_agent": "%REQ(USER-AGENT)%",
    }
    return {
        "name": "envoy.access_loggers.stderr",
        "typed_config": {
            "@type": f"{_TYPES}.access_loggers.stream.v3.StderrAccessLog",
            "log_format": {"json_format": fields},
        },
    }
