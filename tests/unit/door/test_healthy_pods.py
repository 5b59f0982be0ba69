"""Which pods are well, read from what Envoy says of its clusters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard.door.pods import healthy_pods
from modelyard.envoy.process import Admin


class Told(Admin):
    """An interface that says what it was given."""

    def __init__(self, hosts: list[dict[str, Any]]) -> None:
        clusters = [{"name": "waiting-room"}, {"name": "inference-hosts", "host_statuses": hosts}]
        self._body = json.dumps({"cluster_statuses": clusters})

    def request(self, method: str, target: str) -> str:
        assert (method, target) == ("GET", "/clusters?format=json")
        return self._body


def host(address: str, port: int = 8503, **flags: bool) -> dict[str, Any]:
    place = {"socket_address": {"address": address, "port_value": port}}
    return {"address": place, "health_status": {"eds_health_status": "HEALTHY", **flags}}


def test_addresses_are_written_as_settings_write_them() -> None:
    pipe = {"address": {"pipe": {"path": "/run/pod.sock"}}, "health_status": {"eds_health_status": "HEALTHY"}}
    found = healthy_pods(Told([host("10.0.0.1"), host("fd00::1", 1), pipe]))
    assert found == ["10.0.0.1:8503", "[fd00::1]:1", "unix:/run/pod.sock"]


@pytest.mark.parametrize(
    "flag", ["failed_active_health_check", "failed_outlier_check", "pending_dynamic_removal", "pending_active_hc"]
)
def test_a_host_with_any_flag_is_not_well(flag: str) -> None:
    assert healthy_pods(Told([host("10.0.0.1", **{flag: True}), host("10.0.0.2")])) == ["10.0.0.2:8503"]


def test_a_cluster_without_hosts_has_no_pods() -> None:
    assert healthy_pods(Told([])) == []
