"""Promotions, told pod by pod, on SQLite and PostgreSQL. The pods are played: they report what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from modelyard.core.background import running
from modelyard.core.errors import RemoteError
from modelyard.registry.settings import RegistrySettings
from modelyard.v1 import model_pb2, pod_pb2, pod_service_pb2
from modelyard.v1 import model_service_pb2 as pb
from support.identity import Identity
from support.registry import RegistryClient, refusal, running_registry
from support.registry_rows import add_versions
from support.waiting import eventually

State = pod_pb2.PodVersion
LIVE = "models/m/aliases/live"


@dataclass
class PlayedPod:
    """Says what it is told to say."""

    registry: RegistryClient
    name: str = "a"
    versions: dict[int, pod_pb2.PodVersion] = field(default_factory=dict)

    async def says(self, version: int, state: pod_pb2.PodVersion.State.ValueType, **facts: Any) -> None:
        """Reports a version in this state, as of now."""
        name = f"models/m/versions/{version}"
        self.versions[version] = pod_pb2.PodVersion(name=name, state=state, **facts)
        await self.report()

    async def serves(self, version: int) -> None:
        """Reports that `live` is this version."""
        for other in self.versions.values():
            del other.aliases[:]
        digest = f"{version}" * 64
        await self.says(version, State.STATE_SERVING, digest=digest, aliases=["live"], load_time=Duration(nanos=5000))

    async def finds_broken(self, version: int) -> None:
        """Reports that no pod can load it."""
        await self.says(version, State.STATE_FAILED, reason="no graph at all", broken=True)

    async def report(self, **fields: Any) -> pod_service_pb2.ReportPodResponse:
        """Reports everything, with the registry's newest revision unless told otherwise."""
        options = {"revision": await revision(self.registry), **fields}
        pod = pod_pb2.Pod(
            name=f"pods/{self.name}", display_name=f"pod {self.name}", versions=self.versions.values(), **options
        )
        return await self.registry.pods.ReportPod(pod_service_pb2.ReportPodRequest(pod=pod))


async def revision(registry: RegistryClient) -> int:
    """What a pod that hears everything has taken over."""
    watching = registry.models.WatchModels(pb.WatchModelsRequest())
    message = await anext(aiter(watching))
    watching.cancel()
    return int(message.revision)


def promote(registry: RegistryClient, version: int, *, wait_s: int = 30, **fields: Any) -> Any:
    request = pb.PromoteModelVersionRequest(
        name=f"models/m/versions/{version}", wait_timeout=Duration(seconds=wait_s), **fields
    )
    return registry.models.PromoteModelVersion(request)


def states(response: pb.PromoteModelVersionResponse) -> dict[str, str]:
    return {pod.display_name: State.State.Name(pod.state).removeprefix("STATE_") for pod in response.pods}


async def live(registry: RegistryClient) -> int:
    return (await registry.models.GetModelAlias(pb.GetModelAliasRequest(name=LIVE))).version


async def reasons(registry: RegistryClient) -> list[str]:
    answer = await registry.models.ListModelAliasChanges(pb.ListModelAliasChangesRequest(parent="models/m"))
    return [change.reason for change in answer.changes]


async def refused(stream: AsyncIterator[Any]) -> tuple[list[Any], RemoteError]:
    """What came before the error, and the error."""
    told = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for message in stream:
            told.append(message)  # noqa: PERF401 - what came before the error counts
    return told, RemoteError.from_rpc(raised.value)


@pytest.fixture
async def versions(registry: RegistryClient, settings: RegistrySettings) -> RegistryClient:
    """A registry whose model has versions 1, which is live, 2 and 3: rows only, nobody here looks at graphs."""
    await add_versions(settings, 3)
    await registry.set_alias(1)
    return registry


async def test_the_receipt_names_every_live_pod_with_digest_and_load_time(versions: RegistryClient) -> None:
    a, b = PlayedPod(versions, "a"), PlayedPod(versions, "b")
    await a.serves(1)
    await b.serves(1)
    stream = aiter(promote(versions, 2, reason="better"))
    first = await anext(stream)
    assert (first.model_alias.version, first.served) == (2, False)
    assert states(first) == {"pod a": "PENDING", "pod b": "PENDING"}
    await a.says(2, State.STATE_LOADING)
    assert states(await anext(stream)) == {"pod a": "LOADING", "pod b": "PENDING"}
    await a.serves(2)
    assert not (await anext(stream)).served
    await b.serves(2)
    last = await anext(stream)
    assert last.served
    assert [(pod.pod, pod.digest, pod.load_time.nanos) for pod in last.pods] == [
        ("pods/a", "2" * 64, 5000), ("pods/b", "2" * 64, 5000)
    ]  # fmt: skip
    assert [message async for message in stream] == []
    assert (await live(versions), (await reasons(versions))[0]) == (2, "better")


async def test_what_a_pod_said_before_the_promotion_does_not_count(versions: RegistryClient) -> None:
    pod = PlayedPod(versions)
    await versions.set_alias(2)
    before = await revision(versions)
    await pod.serves(2)
    await versions.set_alias(1)
    await pod.report(revision=before)
    stream = aiter(promote(versions, 2))
    assert states(await anext(stream)) == {"pod a": "PENDING"}
    await pod.report()
    assert (await anext(stream)).served


async def test_a_broken_version_is_put_back_and_the_call_says_why(versions: RegistryClient) -> None:
    pod = PlayedPod(versions)
    await pod.serves(1)
    stream = promote(versions, 2)
    await anext(aiter(stream))
    await pod.finds_broken(2)
    told, error = await refused(stream)
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_BROKEN")
    assert error.metadata["put_back"] == "true"
    assert error.metadata["pod_reasons"] == "pod a: no graph at all"
    assert [pod.reason for pod in told[-1].pods] == ["no graph at all"]
    assert await live(versions) == 1
    assert (await reasons(versions))[0] == "put back: version 2 cannot be served: pod a: no graph at all"


async def test_the_receipt_of_a_broken_version_says_so_though_its_pod_has_let_go_of_it(
    versions: RegistryClient,
) -> None:
    pod, other = PlayedPod(versions), PlayedPod(versions, "b")
    await other.serves(1)
    stream = promote(versions, 2, request_id="once")
    await anext(aiter(stream))
    stream.cancel()
    await pod.finds_broken(2)
    del pod.versions[2]
    await pod.serves(1)
    told, error = await refused(promote(versions, 2, request_id="once"))
    assert states(told[-1]) == {"pod a": "FAILED", "pod b": "PENDING"}
    assert [pod.reason for pod in told[-1].pods] == ["no graph at all", ""]
    assert error.metadata["pod_reasons"] == "pod a: no graph at all"


async def test_a_broken_version_is_put_back_after_its_caller_has_gone(versions: RegistryClient) -> None:
    pod = PlayedPod(versions)
    stream = promote(versions, 2, request_id="once")
    await anext(aiter(stream))
    stream.cancel()
    await pod.finds_broken(2)
    assert await live(versions) == 1
    error = await refusal(promote(versions, 2, request_id="once"))  # the same call hears how it ended
    assert (error.reason, error.metadata["put_back"]) == ("VERSION_BROKEN", "true")


async def test_a_new_alias_that_leads_to_a_broken_version_is_removed(versions: RegistryClient) -> None:
    stream = promote(versions, 2, alias="next")
    await anext(aiter(stream))
    await PlayedPod(versions).finds_broken(2)
    assert (await refused(stream))[1].reason == "VERSION_BROKEN"
    request = pb.GetModelAliasRequest(name="models/m/aliases/next")
    assert (await refusal(versions.models.GetModelAlias(request))).code is grpc.StatusCode.NOT_FOUND


async def test_on_request_a_broken_version_keeps_the_alias(versions: RegistryClient) -> None:
    stream = promote(versions, 2, keep_when_broken=True)
    await anext(aiter(stream))
    await PlayedPod(versions).finds_broken(2)
    _told, error = await refused(stream)
    assert (error.reason, error.metadata["put_back"], await live(versions)) == ("VERSION_BROKEN", "false", 2)
    again = await refusal(promote(versions, 2))  # it is still broken, and this call has moved nothing to put back
    assert (again.reason, again.metadata["put_back"], await live(versions)) == ("VERSION_BROKEN", "false", 2)


async def test_what_somebody_else_has_moved_meanwhile_is_not_put_back(versions: RegistryClient) -> None:
    stream = promote(versions, 2)
    await anext(aiter(stream))
    await versions.set_alias(3)
    _told, error = await refused(stream)
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "CONFLICT")
    await PlayedPod(versions).finds_broken(2)
    assert await live(versions) == 3


async def test_a_pods_own_trouble_does_not_condemn_the_version(versions: RegistryClient) -> None:
    pod = PlayedPod(versions)
    stream = aiter(promote(versions, 2))
    await anext(stream)
    await pod.says(2, State.STATE_FAILED, reason="the pod's disk: no space left")
    assert states(await anext(stream)) == {"pod a": "FAILED"}
    await pod.serves(2)
    assert (await anext(stream)).served


async def test_without_a_pod_the_call_says_so_and_the_alias_has_moved(versions: RegistryClient) -> None:
    told, error = await refused(promote(versions, 2, wait_s=0))
    assert [list(message.pods) for message in told] == [[]]
    assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "NOT_SERVED_YET")
    assert "no pod is alive" in error.message
    assert (error.metadata["live_pods"], await live(versions)) == ("0", 2)


async def test_a_promotion_that_ran_out_of_time_can_be_watched_again(versions: RegistryClient) -> None:
    pod = PlayedPod(versions)
    await pod.says(2, State.STATE_LOADING)
    error = (await refused(promote(versions, 2, wait_s=0, request_id="r")))[1]
    assert (error.metadata["live_pods"], error.metadata["serving_pods"]) == ("1", "0")
    stream = aiter(promote(versions, 2, request_id="r"))
    await anext(stream)
    await pod.serves(2)
    assert (await anext(stream)).served


async def test_a_version_that_is_found_broken_late_is_put_back_if_nobody_serves_it(versions: RegistryClient) -> None:
    late = PlayedPod(versions, "a")
    await late.says(2, State.STATE_LOADING)
    assert (await refused(promote(versions, 2, wait_s=0, request_id="r")))[1].reason == "NOT_SERVED_YET"
    await late.finds_broken(2)
    assert await live(versions) == 1
    error = await refusal(promote(versions, 2, request_id="r"))
    assert (error.reason, error.metadata["put_back"]) == ("VERSION_BROKEN", "true")


async def test_a_version_that_a_pod_serves_is_not_put_back_late(versions: RegistryClient) -> None:
    await PlayedPod(versions, "a").serves(2)
    await refused(promote(versions, 2, wait_s=0))
    await PlayedPod(versions, "b").finds_broken(2)
    assert await live(versions) == 2


async def test_a_draining_pod_and_one_without_a_lease_are_not_waited_for(
    settings: RegistrySettings, identity: Identity
) -> None:
    hasty = settings.model_copy(update={"pod_lease_s": 0.5})
    async with running_registry(hasty, identity) as registry:
        await add_versions(settings, 1)
        await registry.set_alias(1)
        gone, draining = PlayedPod(registry, "gone"), PlayedPod(registry, "draining")
        await gone.report()
        await draining.report(state=pod_pb2.Pod.STATE_DRAINING)

        async def alone() -> bool:
            answer = await registry.pods.ListPods(pod_service_pb2.ListPodsRequest())
            return not answer.pods

        await eventually(alone)
        serving = PlayedPod(registry, "serving")
        await serving.serves(1)

        async def stay() -> None:
            while True:  # their leases are short, and the machine may be busy
                await serving.report()
                await draining.report(state=pod_pb2.Pod.STATE_DRAINING)

        async with running(stay()):
            last = [message async for message in promote(registry, 1)][-1]
    assert (last.served, states(last)) == (True, {"pod serving": "SERVING"})


async def test_any_replica_tells_what_pods_told_another(
    versions: RegistryClient, settings: RegistrySettings, identity: Identity
) -> None:
    async with running_registry(settings, identity) as replica:
        stream = aiter(promote(versions, 2))
        await anext(stream)
        await PlayedPod(replica).serves(2)
        assert (await anext(stream)).served


async def test_a_stopping_registry_sends_watchers_elsewhere(versions: RegistryClient) -> None:
    stream = promote(versions, 2)
    await anext(aiter(stream))
    versions.registry.stopping.set()
    error = (await refused(stream))[1]
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")


async def test_etag_and_names_are_checked(versions: RegistryClient) -> None:
    assert (await refusal(promote(versions, 2, etag="77"))).reason == "CONFLICT"
    assert (await refusal(promote(versions, 9))).code is grpc.StatusCode.NOT_FOUND
    bad = pb.PromoteModelVersionRequest(
        name="models/m/versions/2", alias="No!", reason="x" * 1001, wait_timeout=Duration(seconds=3601)
    )
    error = await refusal(versions.models.PromoteModelVersion(bad))
    assert {violation.field for violation in error.violations} == {"alias", "reason", "wait_timeout"}
    by_alias = pb.PromoteModelVersionRequest(name="models/m/versions/live")
    assert (await refusal(versions.models.PromoteModelVersion(by_alias))).violations[0].field == "name"
    assert await live(versions) == 1


async def test_two_promotions_at_once_end_with_one_winner(versions: RegistryClient) -> None:
    pod = PlayedPod(versions)
    etag = (await versions.models.GetModelAlias(pb.GetModelAliasRequest(name=LIVE))).etag

    async def first_word(version: int) -> pb.PromoteModelVersionResponse | RemoteError:
        try:
            return await anext(aiter(promote(versions, version, etag=etag)))
        except grpc.aio.AioRpcError as error:
            return RemoteError.from_rpc(error)

    answers = await asyncio.gather(first_word(2), first_word(3))
    assert [isinstance(answer, RemoteError) for answer in answers].count(True) == 1
    winner = await live(versions)
    await pod.serves(winner)
    assert [message async for message in promote(versions, winner)][-1].served


class TestPods:
    """What pods tell of themselves, read by others."""

    async def test_they_are_listed_by_name_page_by_page(self, versions: RegistryClient) -> None:
        for name in ("b", "c", "a"):
            await PlayedPod(versions, name).serves(1)
        first = await versions.pods.ListPods(pod_service_pb2.ListPodsRequest(page_size=2))
        rest = await versions.pods.ListPods(
            pod_service_pb2.ListPodsRequest(page_size=2, page_token=first.next_page_token)
        )
        assert [pod.name for pod in (*first.pods, *rest.pods)] == ["pods/a", "pods/b", "pods/c"]
        assert rest.next_page_token == ""
        version = first.pods[0].versions[0]
        assert (version.name, list(version.aliases)) == ("models/m/versions/1", ["live"])
        assert first.pods[0].expire_time.ToNanoseconds() > first.pods[0].update_time.ToNanoseconds()

    async def test_a_sign_of_life_keeps_what_was_told_and_asks_an_unknown_pod_for_everything(
        self, versions: RegistryClient
    ) -> None:
        await PlayedPod(versions).serves(1)

        async def alive(name: str) -> pod_service_pb2.ReportPodResponse:
            request = pod_service_pb2.ReportPodRequest(pod=pod_pb2.Pod(name=name), unchanged=True)
            return await versions.pods.ReportPod(request)

        known, unknown = await alive("pods/a"), await alive("pods/stranger")
        assert (known.unknown, unknown.unknown, known.lease.seconds) == (False, True, 15)
        answer = await versions.pods.ListPods(pod_service_pb2.ListPodsRequest())
        assert [len(pod.versions) for pod in answer.pods] == [1]

    async def test_a_caller_sees_the_versions_of_its_own_tenant(
        self, versions: RegistryClient, settings: RegistrySettings, identity: Identity
    ) -> None:
        await PlayedPod(versions).serves(1)
        async with running_registry(settings, identity, "viewer", tenant="other") as stranger:
            answer = await stranger.pods.ListPods(pod_service_pb2.ListPodsRequest())
            assert [(pod.display_name, list(pod.versions)) for pod in answer.pods] == [("pod a", [])]
            report = pod_service_pb2.ReportPodRequest(pod=pod_pb2.Pod(name="pods/a"))
            assert (await refusal(stranger.pods.ReportPod(report))).code is grpc.StatusCode.PERMISSION_DENIED

    @pytest.mark.parametrize(
        "pod",
        [
            pod_pb2.Pod(name="pods/../etc"),
            pod_pb2.Pod(name=""),
            pod_pb2.Pod(name="pods/a", versions=[pod_pb2.PodVersion(name="models/m/versions/live")]),
            pod_pb2.Pod(name="pods/a", versions=[pod_pb2.PodVersion(name="m/1")]),
        ],
    )
    async def test_a_report_of_nobody_is_refused(self, sqlite_registry: RegistryClient, pod: pod_pb2.Pod) -> None:
        error = await refusal(sqlite_registry.pods.ReportPod(pod_service_pb2.ReportPodRequest(pod=pod)))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT


class TestShadowReports:
    """What pods counted, added up."""

    async def tell(self, registry: RegistryClient, pod: str, **counts: Any) -> None:
        shadow = model_pb2.ShadowReport(name=LIVE, version=1, shadow_version=2, **counts)
        request = pod_service_pb2.ReportPodRequest(pod=pod_pb2.Pod(name=f"pods/{pod}"), shadows=[shadow])
        await registry.pods.ReportPod(request)

    async def test_the_totals_of_all_pods_are_added_up(self, versions: RegistryClient) -> None:
        traffic = model_pb2.Traffic(shadow=model_pb2.ShadowTarget(version=2))
        target = model_pb2.ModelAlias(name=LIVE, version=1, traffic=traffic)
        await versions.models.SetModelAlias(pb.SetModelAliasRequest(model_alias=target))
        request = pb.GetShadowReportRequest(name=LIVE)
        nothing = await versions.models.GetShadowReport(request)
        assert (nothing.version, nothing.shadow_version, nothing.compared) == (1, 2, 0)
        await self.tell(versions, "a", compared=10, rows=20, differing=1, max_absolute_difference=0.5)
        await self.tell(versions, "a", compared=15, rows=30, differing=2, max_absolute_difference=0.5)
        await self.tell(
            versions, "b", compared=5, rows=5, class_mismatches=3, dropped=7, failed=1, last_error="too slow",
            max_absolute_difference=0.25, max_relative_difference=float("inf"),
        )  # fmt: skip
        found = await versions.models.GetShadowReport(request)
        assert (found.compared, found.rows, found.differing, found.class_mismatches) == (20, 35, 2, 3)
        assert (found.dropped, found.failed, found.last_error) == (7, 1, "too slow")
        assert (found.max_absolute_difference, found.max_relative_difference) == (0.5, float("inf"))
        assert found.HasField("update_time")

    async def test_without_a_shadow_there_is_no_report(self, versions: RegistryClient) -> None:
        error = await refusal(versions.models.GetShadowReport(pb.GetShadowReportRequest(name=LIVE)))
        assert error.code is grpc.StatusCode.NOT_FOUND
