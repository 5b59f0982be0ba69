"""What a pod tells a registry that forgets, refuses, or has never heard of reports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from modelyard.core.errors import Unavailable
from modelyard.core.serving import Service
from modelyard.v1 import pod_pb2, pod_service_pb2_grpc
from modelyard.v1 import pod_service_pb2 as pb
from support import graphs
from support.grpc_server import serve
from support.identity import Identity
from support.inference_pod import Pod, running_pod
from support.served_registry import ServedRegistry
from support.waiting import eventually

SERVING, FAILED = pod_pb2.PodVersion.STATE_SERVING, pod_pb2.PodVersion.STATE_FAILED


@dataclass
class Desk(pod_service_pb2_grpc.PodServiceServicer):
    """Takes reports, as the test wants it to."""

    reports: list[pb.ReportPodRequest] = field(default_factory=list)
    lease_s: float = 0.3
    unknown: bool = False
    away: bool = False

    async def ReportPod(self, request: pb.ReportPodRequest, _context: Any) -> pb.ReportPodResponse:
        if self.away:
            raise Unavailable("away")
        self.reports.append(request)
        return pb.ReportPodResponse(lease=Duration(nanos=round(self.lease_s * 1e9)), unknown=self.unknown)

    def newest(self) -> pod_pb2.Pod:
        """The newest full report."""
        return next((r.pod for r in reversed(self.reports) if not r.unchanged), pod_pb2.Pod())


@pytest.fixture
async def desk() -> Desk:
    return Desk()


@pytest.fixture
async def registry_address(registry: ServedRegistry, desk: Desk, identity: Identity) -> AsyncIterator[str]:
    service = registry.service()

    def register(server: grpc.aio.Server) -> None:
        service.register(server)
        pod_service_pb2_grpc.add_PodServiceServicer_to_server(desk, server)

    async with serve(Service(register, service.names), identity) as address:
        yield address


async def until(desk: Desk, *expected: tuple[str, int]) -> pod_pb2.Pod:
    """Returns when the newest report names exactly these versions in these states."""

    async def told() -> pod_pb2.Pod | None:
        pod = desk.newest()
        return pod if [(version.name, version.state) for version in pod.versions] == list(expected) else None

    return await eventually(told)


async def test_a_change_is_told_in_full_and_then_only_that_the_pod_lives(
    registry: ServedRegistry, desk: Desk, pod: Pod
) -> None:
    registry.add("scale", graphs.scale(1))
    told = await until(desk, ("models/scale/versions/1", SERVING))
    assert (told.revision, told.state) == (registry.revision, pod_pb2.Pod.STATE_LIVE)
    assert told.versions[0].digest == registry.models["scale"].versions[0].model_version.digest
    assert list(told.versions[0].aliases) == ["live"]

    async def signs_of_life() -> bool:
        return [report.unchanged for report in desk.reports[-3:]] == [True] * 3

    await eventually(signs_of_life)
    assert {report.pod.name for report in desk.reports} == {told.name}
    assert [list(report.pod.versions) for report in desk.reports[-3:]] == [[]] * 3


async def test_a_registry_that_forgot_is_told_everything_again(registry: ServedRegistry, desk: Desk, pod: Pod) -> None:
    registry.add("scale", graphs.scale(1))
    await until(desk, ("models/scale/versions/1", SERVING))
    desk.unknown = True
    desk.reports.clear()
    await until(desk, ("models/scale/versions/1", SERVING))


async def test_what_fails_is_told_with_the_reason_and_whose_fault_it_is(
    registry: ServedRegistry, desk: Desk, pod: Pod
) -> None:
    registry.add("scale", graphs.scale(1))
    await until(desk, ("models/scale/versions/1", SERVING))
    registry.add("scale", graphs.only_batch_one())
    told = await until(desk, ("models/scale/versions/1", SERVING), ("models/scale/versions/2", FAILED))
    assert list(told.versions[0].aliases) == ["live"]  # the old one answers
    assert "fails on zeros" in told.versions[1].reason
    assert told.versions[1].broken
    registry.add("other", graphs.scale(3), size_bytes=10**15)  # a trouble of this pod: it has no room for it
    told = await until(
        desk,
        ("models/scale/versions/1", SERVING), ("models/scale/versions/2", FAILED), ("models/other/versions/1", FAILED),
    )  # fmt: skip
    assert "too small" in told.versions[2].reason
    assert not told.versions[2].broken


async def test_a_desk_that_is_away_is_found_again(registry: ServedRegistry, desk: Desk, pod: Pod) -> None:
    desk.away = True
    registry.add("scale", graphs.scale(1))
    await pod.until_ready("scale")
    desk.away = False
    await until(desk, ("models/scale/versions/1", SERVING))


async def test_a_draining_pod_says_so(registry: ServedRegistry, desk: Desk, pod: Pod) -> None:
    await pod.running.health.drain()

    async def draining() -> bool:
        return desk.newest().state == pod_pb2.Pod.STATE_DRAINING

    await eventually(draining)


async def test_a_pod_serves_behind_a_registry_that_knows_no_reports(
    registry: ServedRegistry, identity: Identity, tmp_path: Path
) -> None:
    registry.add("scale", graphs.scale(1))
    async with (
        serve(registry.service(), identity) as address,
        running_pod(address, identity, tmp_path / "pod") as pod,
    ):
        await pod.until_ready("scale")
