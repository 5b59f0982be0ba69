"""The services behind the door as Envoy clusters.

Each service is a pair: `NAME-hosts` with its real addresses, health-checked, and `NAME`, which the routes use: those
hosts, or, while none of them is healthy, `waiting-room`. Nothing listens there, so a call sent there fails to connect,
and failing to connect is what every call may be retried after. Without it Envoy answers "no healthy upstream" at once,
and no retry policy applies to that answer. See docs/adr/0003-door-envoy.md.
"""

from __future__ import annotations

from typing import Any

from modelyard.envoy.addresses import Address, TcpAddress, parse_address
from modelyard.envoy.http import BUFFER_BYTES, CIRCUIT_BREAKERS, endpoints, http2_upstream

from .settings import DoorSettings

GATEWAY, REGISTRY, INFERENCE = "gateway", "registry", "inference"
WAITING_ROOM = "waiting-room"

# Connecting fails at once, and nobody can ever bind it to catch other people's calls: /dev/null is no folder.
_NOWHERE = "/dev/null/waiting-room"

# Every address that the names resolve to is a host (a headless service in Kubernetes, a scaled one in compose).
_DNS = {
    "cluster_type": {
        "name": "envoy.cluster.dns",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
            "dns_refresh_rate": "1s",
            "dns_lookup_family": "V4_PREFERRED",
        },
    }
}


def hosts_of(service: str) -> str:
    """The cluster with a service's real addresses."""
    return f"{service}-hosts"


def clusters(settings: DoorSettings) -> list[dict[str, Any]]:
    """All clusters."""
    services = {
        GATEWAY: settings.gateway_addresses,
        REGISTRY: settings.registry_addresses,
        INFERENCE: settings.inference_addresses,
    }
    found = [_waiting_room()]
    for name, texts in services.items():
        hosts = _hosts(hosts_of(name), [parse_address(text) for text in texts], settings)
        if name == INFERENCE:
            hosts["outlier_detection"] = _outlier_detection()
        found += [hosts, _hosts_or_waiting_room(name)]
    return found


def _hosts(name: str, addresses: list[Address], settings: DoorSettings) -> dict[str, Any]:
    """The real addresses of a service."""
    by_dns = any(isinstance(address, TcpAddress) and not address.is_ip for address in addresses)
    tcp = any(isinstance(address, TcpAddress) for address in addresses)
    return {
        "name": name,
        **(_DNS if by_dns else {"type": "STATIC"}),
        "connect_timeout": "2s",
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {
            # A host that health checks or outlier detection excluded gets nothing: calls wait for a good one instead.
            "healthy_panic_threshold": {"value": 0},
            # Envoy otherwise gathers changes of health for up to a second, longer than a stopping host announces it.
            "update_merge_window": "0s",
        },
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "circuit_breakers": CIRCUIT_BREAKERS,
        "health_checks": [_health_check(settings)],
        "typed_extension_protocol_options": http2_upstream(tcp=tcp),
        **({"upstream_connection_options": {"tcp_keepalive": {}}} if tcp else {}),
        "load_assignment": endpoints(
            name,
            [address.to_envoy() for address in addresses],
            # Envoy moves load away in proportion to the unhealthy share, from 1 - 1/1.4 on. The waiting room must get
            # none while a single host of many is healthy: this factor makes one in 10,000 enough.
            policy={"overprovisioning_factor": 1_000_000},
        ),
    }


def _hosts_or_waiting_room(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "2s",
        "circuit_breakers": CIRCUIT_BREAKERS,
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": [hosts_of(name), WAITING_ROOM],
            },
        },
    }


def _waiting_room() -> dict[str, Any]:
    return {
        "name": WAITING_ROOM,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": CIRCUIT_BREAKERS,
        "typed_extension_protocol_options": http2_upstream(tcp=False),
        "load_assignment": endpoints(WAITING_ROOM, [{"pipe": {"path": _NOWHERE}}]),
    }


def _health_check(settings: DoorSettings) -> dict[str, Any]:
    """grpc.health.v1 for the whole process. NOT_SERVING counts at once; silence or no connection, the second time."""
    interval = f"{settings.health_interval_s}s"
    return {
        "grpc_health_check": {},
        "interval": interval,
        "no_traffic_interval": interval,  # Envoy's default of 60 s would greet the first call with old news
        # A process that is busy for a moment is not dead.
        "timeout": "3s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
    }


def _outlier_detection() -> dict[str, Any]:
    """Leaves out a pod that three times running could not be reached or hung up, sooner than its health check.

    Nothing that a pod answers counts, not even INTERNAL or UNAVAILABLE: one caller's bad model or one model that is
    still loading must not take a pod from everybody else.
    """
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 3,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "enforcing_failure_percentage": 0,
        "enforcing_failure_percentage_local_origin": 0,
        "interval": "1s",
        "base_ejection_time": "2s",
        "max_ejection_time": "10s",
        "max_ejection_percent": 100,
    }
