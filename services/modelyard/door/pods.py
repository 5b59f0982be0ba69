"""Which pods are well, by Envoy's word: it resolves their names, checks their health and leaves out the unreachable."""

from __future__ import annotations

import json
from typing import Any

from modelyard.envoy.process import Admin

from .upstreams import INFERENCE, hosts_of


def healthy_pods(admin: Admin) -> list[str]:
    """Their addresses, `IP:PORT`, `[IP]:PORT` or `unix:PATH`. Raises OSError, ValueError or LookupError."""
    statuses = json.loads(admin.request("GET", "/clusters?format=json"))["cluster_statuses"]
    hosts = next(status.get("host_statuses", []) for status in statuses if status["name"] == hosts_of(INFERENCE))
    return sorted(_address(host["address"]) for host in hosts if _is_well(host["health_status"]))


def _is_well(health: dict[str, Any]) -> bool:
    """Envoy notes each reason against a host as a flag beside what the configuration says of it."""
    return health.get("eds_health_status", "HEALTHY") == "HEALTHY" and not any(
        value is True for value in health.values()
    )


def _address(address: dict[str, Any]) -> str:
    if "pipe" in address:
        return f"unix:{address['pipe']['path']}"
    host, port = address["socket_address"]["address"], address["socket_address"]["port_value"]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
