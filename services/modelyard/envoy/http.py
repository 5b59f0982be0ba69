"""What every HTTP listener of ours has in common, as Envoy's configuration: codec, limits, TLS, what is not trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MEBIBYTE = 1024 * 1024
TYPES = "type.googleapis.com/envoy.extensions"

# A tensor of some MB should not wait for window updates; 1,000 such streams should not fill the memory either.
STREAM_WINDOW_BYTES = 4 * MEBIBYTE
CONNECTION_WINDOW_BYTES = 32 * MEBIBYTE
BUFFER_BYTES = 4 * MEBIBYTE

_UNLIMITED = 1_000_000
CIRCUIT_BREAKERS: dict[str, Any] = {
    # Envoy's defaults (1,024 calls at a time, 3 retries at a time) would turn a busy moment into errors. The services
    # bound their own queues and say so in their own words.
    "thresholds": [
        {
            "max_connections": _UNLIMITED,
            "max_pending_requests": _UNLIMITED,
            "max_requests": _UNLIMITED,
            "max_retries": _UNLIMITED,
        }
    ]
}


def bootstrap(
    name: str,
    admin_socket: Path,
    listeners: Sequence[dict[str, Any]],
    clusters: Sequence[dict[str, Any]],
    max_connections: int,
    runtime: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole configuration (`config.bootstrap.v3.Bootstrap`) of an Envoy. `runtime`: its flags."""
    monitors = f"{TYPES}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    return {
        "node": {"id": name, "cluster": "modelyard"},
        "admin": {"address": {"pipe": {"path": str(admin_socket), "mode": 0o600}}},
        "static_resources": {"listeners": list(listeners), "clusters": list(clusters)},
        "layered_runtime": {"layers": [{"name": "flags", "static_layer": dict(runtime or {})}]},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {"@type": monitors, "max_active_downstream_connections": max_connections},
                }
            ]
        },
    }


def render(config: Mapping[str, Any]) -> str:
    """The configuration as JSON, which Envoy reads from a `.json` file."""
    return json.dumps(config, indent=2) + "\n"


def listener(
    name: str, address: dict[str, Any], manager: dict[str, Any], tls: tuple[Path, Path] | None = None, **more: Any
) -> dict[str, Any]:
    """A listener for HTTP. `manager`: a `connection_manager`. `tls`: files with certificate chain and private key."""
    chain: dict[str, Any] = {"filters": [manager]}
    if tls is not None:
        chain["transport_socket"] = _tls(*tls)
    return {
        "name": name,
        "address": address,
        # Two programs on one port are a mistake, not a feature. One socket for all worker threads, then, and
        # connections dealt out evenly: gRPC clients open few and keep them.
        "enable_reuse_port": False,
        "connection_balance_config": {"exact_balance": {}},
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": [chain],
        **more,
    }


def connection_manager(
    name: str, virtual_host: dict[str, Any], http_filters: Sequence[dict[str, Any]], *, idle_s: float, **more: Any
) -> dict[str, Any]:
    """Envoy's HTTP connection manager.

    `name`: also the prefix of its statistics. `idle_s`: a call in which no byte moves for so long is ended, unless its
    route says otherwise.
    """
    config = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "route_config": {"name": name, "virtual_hosts": [virtual_host], "validate_clusters": True},
        "http_filters": list(http_filters),
        "http2_protocol_options": {
            "max_concurrent_streams": 10_000,
            # The other codec (nghttp2) now and then ends a whole connection, with everybody's calls on it, when callers
            # cancel: GOAWAY 2, "The user callback function failed". Seen in 4 of 300 rounds of the conformance check
            # `calls.cancels`, with this codec in none of 900.
            "use_oghttp2_codec": True,
            "initial_stream_window_size": STREAM_WINDOW_BYTES,
            "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
            # A client that vanished without a word is noticed within a minute and a half.
            "connection_keepalive": {"interval": "60s", "timeout": "20s"},
        },
        "common_http_protocol_options": {"idle_timeout": "3600s"},
        "request_headers_timeout": "10s",
        "stream_idle_timeout": f"{idle_s}s",
        "drain_timeout": "1s",
        # Envoy obeys x-envoy-* headers (retries, timeouts) of "internal" peers, by default all private addresses. Here
        # nobody is one: an empty list would mean the default, so this is an address that no peer has (RFC 5737).
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 32}]},
        "server_header_transformation": "PASS_THROUGH",
        **more,
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def http_filter(name: str, message: str, **settings: Any) -> dict[str, Any]:
    """One of Envoy's own HTTP filters, as in `("router", "router.v3.Router")`."""
    return {
        "name": f"envoy.filters.http.{name}",
        "typed_config": {"@type": f"{TYPES}.filters.http.{message}", **settings},
    }


def router() -> dict[str, Any]:
    """The last filter: it sends a call to its cluster."""
    return http_filter("router", "router.v3.Router", suppress_envoy_headers=True)


def http2_upstream(*, tcp: bool) -> dict[str, Any]:
    """HTTP/2 to a cluster. Over TCP a silent peer is noticed by pings; a Unix socket's death the kernel tells."""
    options: dict[str, Any] = {
        "initial_stream_window_size": STREAM_WINDOW_BYTES,
        "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
        "max_concurrent_streams": 100_000,
    }
    if tcp:
        options["connection_keepalive"] = {"interval": "10s", "timeout": "10s"}
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": options},
            # A connection without calls costs nothing worth saving, and opening one costs the next caller.
            "common_http_protocol_options": {"idle_timeout": "3600s"},
        }
    }


def endpoints(name: str, addresses: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The addresses of a cluster."""
    return {
        "cluster_name": name,
        **more,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}} for address in addresses]}],
    }


def access_log(fields: Mapping[str, str]) -> dict[str, Any]:
    """A JSON line per call on standard error, with these fields beside those that every access log has."""
    common = {
        "time": "%START_TIME%",
        "method": "%REQ(:PATH)%",
        "protocol": "%PROTOCOL%",
        "http_status": "%RESPONSE_CODE%",
        "grpc_status": "%GRPC_STATUS%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "ms": "%DURATION%",
        "bytes_in": "%BYTES_RECEIVED%",
        "bytes_out": "%BYTES_SENT%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "user_agent": "%REQ(USER-AGENT)%",
    }
    return {
        "name": "envoy.access_loggers.stderr",
        "typed_config": {
            "@type": f"{TYPES}.access_loggers.stream.v3.StderrAccessLog",
            "log_format": {"json_format": {**common, **fields}},
        },
    }


def _tls(certificate_file: Path, key_file: Path) -> dict[str, Any]:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": str(certificate_file)},
                        "private_key": {"filename": str(key_file)},
                    }
                ],
            },
        },
    }
