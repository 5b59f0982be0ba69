"""Two pods behind the real registry: promotions, canaries and shadows, while callers keep calling."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from modelyard import Client
from modelyard.core.errors import RemoteError
from modelyard.registry.application import open_registry
from modelyard.registry.settings import RegistrySettings
from modelyard.v1 import model_pb2, pod_pb2, pod_service_pb2
from modelyard.v1 import model_service_pb2 as pb
from support import graphs
from support.grpc_server import serve
from support.identity import Identity
from support.inference_pod import Pod, infer_request, output, row, running_pod
from support.registry import RegistryClient, client, registry_settings
from support.waiting import eventually

LIVE = "models/scale/aliases/live"
CALLERS = 4


@dataclass
class Cluster:
    """A registry and its pods."""

    registry: RegistryClient
    address: str
    identity: Identity
    folder: Path
    pods: list[Pod] = field(default_factory=list)

    async def version(self, factor: float, *, alias: str = "", content: bytes = b"") -> int:
        """Publishes a version that multiplies by `factor`."""
        digest = await self.registry.upload(content or graphs.scale(factor))
        made = await self.registry.create_version("models/scale", digest=digest, alias=alias)
        return int(made.version)

    async def promote(self, version: int, **fields: Any) -> list[pb.PromoteModelVersionResponse]:
        """Everything that the call tells; raises RemoteError."""
        request = pb.PromoteModelVersionRequest(
            name=f"models/scale/versions/{version}", wait_timeout=Duration(seconds=60), **fields
        )
        try:
            return [message async for message in self.registry.models.PromoteModelVersion(request)]
        except grpc.aio.AioRpcError as error:
            raise RemoteError.from_rpc(error) from error

    async def send(self, version: int, traffic: model_pb2.Traffic) -> None:
        """Sets where `live` sends its callers."""
        alias = model_pb2.ModelAlias(name=LIVE, version=version, traffic=traffic)
        await self.registry.models.SetModelAlias(pb.SetModelAliasRequest(model_alias=alias))

    async def listed(self) -> list[pod_pb2.Pod]:
        """The pods that the registry knows."""
        return list((await self.registry.pods.ListPods(pod_service_pb2.ListPodsRequest())).pods)

    async def until_served(self, version: int) -> None:
        """Returns when every pod has the version, whatever for."""
        for pod in self.pods:
            await pod.until_ready("scale", str(version))


@dataclass
class Load:
    """Callers that call for as long as it lasts. Each answer must be entirely one version's."""

    answered: Counter[int] = field(default_factory=Counter)

    async def more(self, count: int) -> None:
        """Returns after so many more answers."""
        enough = self.answered.total() + count

        async def there() -> bool:
            return self.answered.total() >= enough

        await eventually(there)

    async def call(self, pod: Pod) -> None:
        """Calls for ever."""
        while True:
            response = await pod.predict("scale", row(1, 2))
            version = int(response.model_version)
            assert output(response) == [[version, 2 * version]]
            self.answered[version] += 1


@asynccontextmanager
async def under_load(pods: list[Pod]) -> AsyncIterator[Load]:
    """Calls all pods; a call that fails fails the test."""
    load = Load()
    tasks = [asyncio.create_task(load.call(pod)) for pod in pods for _ in range(CALLERS)]
    try:
        yield load
        await load.more(100)
        assert [task.exception() for task in tasks if task.done()] == []
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def cluster(identity: Identity, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Two pods that serve version 1."""
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(open_registry(registry_settings(identity, tmp_path)))
        address = await stack.enter_async_context(serve(registry.service(), identity))
        caller = await stack.enter_async_context(client(address, registry, identity))
        cluster = Cluster(caller, address, identity, tmp_path)
        await cluster.version(1, alias="live")
        for name in ("a", "b"):
            pod = running_pod(address, identity, tmp_path / name, pod=f"pod {name}")
            cluster.pods.append(await stack.enter_async_context(pod))
        await cluster.until_served(1)
        yield cluster


async def test_a_promotion_under_load_fails_no_request_and_ends_with_a_receipt(cluster: Cluster) -> None:
    async with under_load(cluster.pods) as load:
        await load.more(200)
        version = await cluster.version(2)
        told = await cluster.promote(version)
        receipt = told[-1]
        assert receipt.served
        assert not any(message.served for message in told[:-1])
        for pod, name in zip(receipt.pods, ("pod a", "pod b"), strict=True):
            assert (pod.display_name, pod.state) == (name, pod_pb2.PodVersion.STATE_SERVING)
            assert pod.load_time.ToNanoseconds() > 0
            assert len(pod.digest) == 64
        # From the receipt on, nobody is answered by another version.
        before = load.answered[1]
        await load.more(200)
        assert load.answered[1] - before <= CALLERS * len(cluster.pods)  # those that were on their way
    assert set(load.answered) == {1, 2}


async def test_a_broken_version_under_load_is_put_back_and_nobody_notices(cluster: Cluster) -> None:
    async with under_load(cluster.pods) as load:
        await load.more(200)
        # The registry takes it: what fails is computing with it.
        version = await cluster.version(0, content=graphs.only_batch_one())
        with pytest.raises(RemoteError) as raised:
            await cluster.promote(version)
        assert (raised.value.code, raised.value.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_BROKEN")
        assert "the graph fails on zeros" in raised.value.metadata["pod_reasons"]
        alias = await cluster.registry.models.GetModelAlias(pb.GetModelAliasRequest(name=LIVE))
        assert alias.version == 1
        await load.more(200)
        good = await cluster.version(3)
        assert (await cluster.promote(good))[-1].served
    assert set(load.answered) == {1, 3}


async def test_a_promotion_to_what_is_served_already_ends_at_once(cluster: Cluster) -> None:
    assert (await cluster.promote(1))[-1].served


async def test_pods_tell_the_registry_what_they_serve_and_that_they_go(cluster: Cluster) -> None:
    async def told() -> bool:
        pods = await cluster.listed()
        versions = [[(version.name, version.state) for version in pod.versions] for pod in pods]
        return versions == [[("models/scale/versions/1", pod_pb2.PodVersion.STATE_SERVING)]] * 2

    await eventually(told)
    first = (await cluster.listed())[0]
    version = first.versions[0]
    assert (version.state, list(version.aliases)) == (pod_pb2.PodVersion.STATE_SERVING, ["live"])
    await cluster.pods[0].running.health.drain()

    async def draining() -> bool:
        return (await cluster.listed())[0].state == pod_pb2.Pod.STATE_DRAINING

    await eventually(draining)
    two = await cluster.version(2)
    receipt = (await cluster.promote(two))[-1]
    assert [pod.display_name for pod in receipt.pods] == ["pod b"]


async def test_after_an_outage_of_the_registry_pods_report_again_and_take_over_what_was_promoted(
    identity: Identity, tmp_path: Path
) -> None:
    settings, socket = registry_settings(identity, tmp_path, pod_lease_s=1), f"unix:{tmp_path}/registry.sock"
    async with AsyncExitStack() as outage:
        registry = await outage.enter_async_context(open_registry(settings))
        await outage.enter_async_context(serve(registry.service(), identity, listen=socket))
        caller = await outage.enter_async_context(client(socket, registry, identity))
        cluster = Cluster(caller, socket, identity, tmp_path)
        await cluster.version(1, alias="live")
        async with running_pod(socket, identity, tmp_path / "pod") as pod:
            await pod.until_ready("scale")
            async with under_load([pod]) as load:
                await outage.aclose()
                await load.more(200)
                await promote_behind(settings, socket, identity, cluster)
            assert set(load.answered) == {1, 2}


async def promote_behind(settings: RegistrySettings, socket: str, identity: Identity, cluster: Cluster) -> None:
    """Starts the registry again and promotes a new version, which a pod must serve."""
    async with (
        open_registry(settings) as registry,
        serve(registry.service(), identity, listen=socket),
        client(socket, registry, identity) as cluster.registry,
    ):

        async def reached() -> bool:
            try:
                await cluster.listed()
            except grpc.aio.AioRpcError:
                return False  # the channel is still resting from its last try
            return True

        await eventually(reached)
        version = await cluster.version(2)
        assert (await cluster.promote(version))[-1].served


async def test_a_changed_configuration_is_taken_over_under_load(cluster: Cluster) -> None:
    async with under_load(cluster.pods) as load:
        await load.more(100)
        model = model_pb2.Model(name="models/scale", serving=model_pb2.ServingConfig(max_batch_size=3))
        await cluster.registry.models.UpdateModel(pb.UpdateModelRequest(model=model))
        four = infer_request("scale", {"x": np.ones((4, 2), np.float32)})

        async def refused() -> bool:
            answers = await asyncio.gather(*(pod.infer(four) for pod in cluster.pods), return_exceptions=True)
            return all(isinstance(answer, RemoteError) for answer in answers)

        await eventually(refused)
        with pytest.raises(RemoteError) as raised:
            await cluster.pods[0].infer(four)
        assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(load.answered) == {1}


class TestCanary:
    """A part of the callers is answered by another version."""

    async def answers(self, pod: Pod, callers: int = 60, key: str = "x-modelyard-caller") -> dict[str, int]:
        found = {}
        for number in range(callers):
            metadata = ((key, f"caller {number}"),)
            response = await pod.infer(infer_request("scale", row(1, 2)), metadata=metadata)
            assert output(response) == [[int(response.model_version), 2 * int(response.model_version)]]
            found[f"caller {number}"] = int(response.model_version)
        return found

    async def test_callers_are_answered_alike_by_every_pod_and_rolling_back_is_one_call(self, cluster: Cluster) -> None:
        await cluster.version(2)
        await cluster.send(1, model_pb2.Traffic(split=[model_pb2.WeightedVersion(version=2, percent=30)]))
        await cluster.until_served(2)
        one, other = [await self.answers(pod) for pod in cluster.pods]
        assert one == other
        assert set(one.values()) == {1, 2}
        await cluster.registry.roll_back(LIVE)

        async def back() -> bool:
            return set((await self.answers(cluster.pods[0])).values()) == {1}

        await eventually(back)

    async def test_our_client_sends_the_key_and_stays_with_a_version(
        self, cluster: Cluster, identity: Identity
    ) -> None:
        await cluster.version(2)
        traffic = model_pb2.Traffic(split=[model_pb2.WeightedVersion(version=2, percent=50)], sticky_key="x-user")
        await cluster.send(1, traffic)
        await cluster.until_served(2)

        def ask(user: str) -> set[str]:
            with Client(cluster.pods[0].address, identity.token("predictor")) as client:
                asked = [client.predict("scale", {"x": [[1, 2]]}, metadata={"x-user": user}) for _ in range(5)]
                streamed = client.predictions.stream("scale", [{"x": [[1, 2]]}] * 5, metadata={"x-user": user})
                return {answer.version for answer in [*asked, *streamed]}

        seen = [await asyncio.to_thread(ask, f"user {number}") for number in range(12)]
        assert {len(versions) for versions in seen} == {1}
        assert set().union(*seen) == {"1", "2"}

    async def test_a_broken_canary_leaves_every_caller_to_the_stable_version(self, cluster: Cluster) -> None:
        broken = await cluster.version(0, content=graphs.only_batch_one())
        traffic = model_pb2.Traffic(split=[model_pb2.WeightedVersion(version=broken, percent=50)], sticky_key="x-user")
        async with under_load(cluster.pods) as load:
            await cluster.send(1, traffic)
            assert "fails on zeros" in await cluster.pods[0].until_state("scale", broken, "UNAVAILABLE")
            assert set((await self.answers(cluster.pods[0], key="x-user")).values()) == {1}
        assert set(load.answered) == {1}


class TestShadow:
    """A version answers too, and only the comparison is seen."""

    async def report(self, cluster: Cluster) -> model_pb2.ShadowReport:
        return await cluster.registry.models.GetShadowReport(pb.GetShadowReportRequest(name=LIVE))

    async def test_answers_are_compared_and_never_returned(self, cluster: Cluster) -> None:
        await cluster.version(2)
        await cluster.send(1, model_pb2.Traffic(shadow=model_pb2.ShadowTarget(version=2, percent=100)))
        await cluster.until_served(2)
        for _ in range(10):
            assert (await cluster.pods[0].predict("scale", row(1, 2))).model_version == "1"

        async def compared() -> model_pb2.ShadowReport | None:
            report = await self.report(cluster)
            return report if report.compared >= 10 else None

        report = await eventually(compared)
        assert (report.version, report.shadow_version, report.rows) == (1, 2, 10)
        assert (report.differing, report.class_mismatches, report.failed) == (10, 0, 0)
        assert (report.max_absolute_difference, report.max_relative_difference) == (2, 1)

    async def test_a_shadow_that_fails_is_counted_and_harms_nobody(self, cluster: Cluster) -> None:
        other = await cluster.version(0, content=graphs.scale(1, features=5))
        await cluster.send(1, model_pb2.Traffic(shadow=model_pb2.ShadowTarget(version=other, percent=100)))
        await cluster.until_served(other)
        assert output(await cluster.pods[0].predict("scale", row(1, 2))) == [[1, 2]]

        async def failed() -> str:
            return (await self.report(cluster)).last_error

        assert "expected" in await eventually(failed)

    async def test_under_load_callers_come_first(self, cluster: Cluster) -> None:
        await cluster.version(2)
        await cluster.send(1, model_pb2.Traffic(shadow=model_pb2.ShadowTarget(version=2, percent=100)))
        await cluster.until_served(2)
        async with under_load(cluster.pods) as load:
            await load.more(1_000)
        assert set(load.answered) == {1}

        async def accounted() -> bool:
            report = await self.report(cluster)
            return report.compared > 0 and report.compared + report.dropped + report.failed >= 1_000

        await eventually(accounted)
        assert (await self.report(cluster)).failed == 0
