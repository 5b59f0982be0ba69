"""What the pod tells the registry of itself: what it serves, when that has changed, and that it lives.

Nothing waits for it: a registry that is away, or one that knows no reports, changes nothing about what is served.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from modelyard.core.errors import RemoteError
from modelyard.core.logs import get_logger
from modelyard.core.retries import Backoff
from modelyard.v1 import model_pb2, pod_pb2
from modelyard.v1 import pod_service_pb2 as pb

from .table import ModelEntry, ServingTable

if TYPE_CHECKING:  # the class exists for type checkers only
    from modelyard.v1.pod_service_pb2_grpc import PodServiceAsyncStub

_TIMEOUT_S = 10.0
_PAUSE_S = 0.05
"""Between two reports: what changes within it is told together."""
_PAUSE_PER_VERSION_S = 0.001
_FIRST_LEASE_S = 15.0
_REPORTS_PER_LEASE = 3
_REASON_LENGTH = 1000

log = get_logger()


class PodReporter:
    """Reports for ever. `run` it as a task; `note` belongs behind every pass of the reconciler."""

    def __init__(
        self,
        stub: PodServiceAsyncStub,
        table: ServingTable,
        *,
        pod: str,
        revision: Callable[[], int],
        shadows: Callable[[], Iterable[model_pb2.ShadowReport]],
        draining: asyncio.Event,
    ) -> None:
        """`revision`: what has been taken over of what should be served. `shadows`: what was counted so far."""
        self._stub = stub
        self._table = table
        self._revision = revision
        self._shadows = shadows
        self._draining = draining
        self._identity = pod_pb2.Pod(name=f"pods/p{secrets.token_hex(8)}", display_name=pod)
        self._pod = self._describe()
        self._told: pod_pb2.Pod | None = None
        """What the registry knows; None if it may know nothing."""
        self._told_shadows: dict[str, model_pb2.ShadowReport] = {}
        self._changed = asyncio.Event()
        self._lease_s = _FIRST_LEASE_S
        self._backoff = Backoff(first_s=0.1, limit_s=5.0)
        self._failing = False

    async def note(self) -> None:
        """Takes down what is served now. Without a pause since the pass: it must not mix two states."""
        pod = self._describe()
        if pod != self._pod:
            self._pod = pod
            self._changed.set()

    async def run(self) -> None:
        """Reports when something has changed, and a few times within the lease."""
        draining = asyncio.create_task(self._tell_when_draining())
        try:
            while True:
                self._changed.clear()
                wait_s = await self._report()
                await asyncio.sleep(_PAUSE_S + _PAUSE_PER_VERSION_S * len(self._pod.versions))
                try:
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        finally:
            draining.cancel()

    async def _report(self) -> float:
        """One report; how long to wait before the next, if nothing changes."""
        pod = self._pod
        shadows = {_pair(report): report for report in self._shadows()}
        news = [report for pair, report in shadows.items() if self._told_shadows.get(pair) != report]
        unchanged = pod == self._told
        request = pb.ReportPodRequest(
            pod=pod_pb2.Pod(name=pod.name) if unchanged else pod, unchanged=unchanged, shadows=news
        )
        try:
            answer = await self._stub.ReportPod(request, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            return self._failed(RemoteError.from_rpc(error))
        self._failing = False
        self._backoff.reset()
        self._lease_s = answer.lease.ToNanoseconds() / 1e9 or self._lease_s
        self._told_shadows = shadows
        self._told = None if answer.unknown else pod
        return 0.0 if answer.unknown else self._lease_s / _REPORTS_PER_LEASE

    def _failed(self, error: RemoteError) -> float:
        if not self._failing:  # once, not at every try
            log.info("the registry takes no report of this pod", error=str(error))
        self._failing = True
        self._told = None
        known = error.code is not grpc.StatusCode.UNIMPLEMENTED
        return self._backoff.next_s(error) if known else self._lease_s

    async def _tell_when_draining(self) -> None:
        await self._draining.wait()
        await self.note()

    def _describe(self) -> pod_pb2.Pod:
        pod = pod_pb2.Pod()
        pod.CopyFrom(self._identity)
        pod.state = pod_pb2.Pod.STATE_DRAINING if self._draining.is_set() else pod_pb2.Pod.STATE_LIVE
        pod.revision = self._revision()
        for entry in self._table.models.values():
            pod.versions.extend(_describe_version(entry, number) for number in _numbers(entry))
        return pod


def _numbers(entry: ModelEntry) -> list[int]:
    parked = entry.wanted.versions if entry.parked and entry.wanted is not None else ()
    return sorted({*entry.wanted_versions(), *entry.loaded, *parked})


def _describe_version(entry: ModelEntry, number: int) -> pod_pb2.PodVersion:
    version = pod_pb2.PodVersion(name=f"models/{entry.name}/versions/{number}", state=pod_pb2.PodVersion.STATE_LOADING)
    loaded, failure = entry.loaded.get(number), entry.failures.get(number)
    if failure is not None:
        version.state = pod_pb2.PodVersion.STATE_FAILED
        version.reason, version.broken = failure.reason[:_REASON_LENGTH], failure.broken
    if entry.parked and entry.wanted is not None and number in entry.wanted.versions:
        # Tried, and loaded by the first request for it: as good as served.
        version.state = pod_pb2.PodVersion.STATE_SERVING
        version.digest = entry.wanted.versions[number].digest
        version.aliases.extend(sorted(alias for alias, wanted in entry.wanted.aliases.items() if wanted == number))
    elif loaded is not None:  # whatever became of another form of it
        version.state = pod_pb2.PodVersion.STATE_SERVING
        version.digest = loaded.wanted.digest
        version.load_time.CopyFrom(_duration(entry.load_s.get(number, 0.0)))
        version.broken = False
        version.aliases.extend(sorted(alias for alias, answering in entry.aliases.items() if answering == number))
    return version


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration


def _pair(report: model_pb2.ShadowReport) -> str:
    return f"{report.name} {report.version} {report.shadow_version}"
