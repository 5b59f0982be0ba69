"""Two gateways on one database: watched, claimed and cancelled through either."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from modelyard.core.errors import RemoteError
from modelyard.v1.training_job_pb2 import TrainingJobEvent
from support.gateway import (
    GatewayClient,
    Replica,
    State,
    expire_leases,
    gateway_client,
    gateway_settings,
    served_gateway,
    update_of,
    upload_result,
)
from support.identity import Identity
from support.registry import RegistryClient


async def _collect(client: GatewayClient, name: str, after: int = 0) -> list[TrainingJobEvent]:
    return [event async for event in client.watch(name, after)]


async def test_both_tell_the_whole_history_as_it_happens(replicas: list[Replica], registry: RegistryClient) -> None:
    (_, one), (_, two) = replicas
    job = await one.submit()
    watches = [asyncio.create_task(_collect(client, job.name)) for client in (one, two, one, two)]
    await two.claim(job.name)
    for i in range(20):
        await one.report(job.name, 1, 2 * i + 1, update_of(log_line=f"one {i}"))
        await two.report(job.name, 1, 2 * i + 2, update_of(log_line=f"two {i}"))
    await two.finish(job.name, 1, succeeded=await upload_result(registry))
    async with asyncio.timeout(60):
        histories = await asyncio.gather(*watches)
    assert all(history == histories[0] for history in histories)
    history = histories[0]
    assert [event.sequence for event in history] == list(range(1, len(history) + 1))
    assert history[-1].state_change.state == State.STATE_SUCCEEDED
    assert history[-1].state_change.model_version == "models/table/versions/1"
    times = [event.time.ToNanoseconds() for event in history]
    assert times == sorted(times)
    assert await _collect(two, job.name, after=len(history) - 1) == history[-1:]
    assert await _collect(one, job.name, after=len(history)) == []


async def test_a_job_is_claimed_through_one_of_them_only(replicas: list[Replica]) -> None:
    (_, one), (_, two) = replicas
    job = await one.submit()
    claims = await asyncio.gather(*(client.claim(job.name, f"host/{i}") for i in range(5) for client in (one, two)))
    assert sum(claim.claimed for claim in claims) == 1


async def test_the_same_request_through_both_makes_one_job(replicas: list[Replica]) -> None:
    (_, one), (_, two) = replicas
    jobs = await asyncio.gather(*(client.submit(request_id="r") for _ in range(4) for client in (one, two)))
    assert len({job.name for job in jobs}) == 1


async def test_dead_leases_are_taken_back_once(replicas: list[Replica]) -> None:
    (first, one), (second, _) = replicas
    names = [(await one.submit()).name for _ in range(4)]
    for name in names:
        await one.claim(name)
    await asyncio.gather(expire_leases(first), expire_leases(second))
    watches = [asyncio.create_task(_collect(one, name)) for name in names]
    for name in names:
        # The fourth and fifth event are the attempt's end and the job's return to the queue, whichever of the two has
        # seen to it.
        async for event in one.watch(name, 3):
            if event.HasField("state_change"):
                assert event.state_change.state == State.STATE_QUEUED
                break
        await one.cancel(name)
    async with asyncio.timeout(60):
        for history in await asyncio.gather(*watches):
            assert [event.WhichOneof("payload") for event in history] == [
                "state_change", "state_change", "attempt_start", "attempt_end", "state_change", "state_change",
            ]  # fmt: skip
            states = [event.state_change.state for event in history if event.HasField("state_change")]
            assert states == [
                State.STATE_QUEUED, State.STATE_LEASED, State.STATE_QUEUED, State.STATE_CANCELLED,
            ]  # fmt: skip


async def test_a_result_that_both_are_told_of_is_one_version(replicas: list[Replica], registry: RegistryClient) -> None:
    (_, one), (_, two) = replicas
    job = await one.submit()
    await one.claim(job.name)
    artifact = await upload_result(registry)
    finished = await asyncio.gather(
        *(client.finish(job.name, 1, succeeded=artifact) for client in (one, two, one, two))
    )
    assert {done.model_version for done in finished} == {"models/table/versions/1"}


async def test_a_watcher_of_a_stopping_gateway_goes_on_at_the_other(
    database_url: str, registry_address: str, registry: RegistryClient, identity: Identity, tmp_path: Path
) -> None:
    settings = gateway_settings(identity, tmp_path, database_url=database_url, registry_address=registry_address)
    async with AsyncExitStack() as stack:
        _, address = await stack.enter_async_context(served_gateway(settings, identity))
        two = await stack.enter_async_context(gateway_client(address, identity.token()))
        stopping = AsyncExitStack()
        _, address = await stopping.enter_async_context(served_gateway(settings, identity))
        one = await stack.enter_async_context(gateway_client(address, identity.token()))
        job = await one.submit()
        stream = one.watch(job.name)
        seen = [await anext(aiter(stream))]
        closing = asyncio.create_task(stopping.aclose())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            seen += [event async for event in stream]
        await closing
        error = RemoteError.from_rpc(caught.value)
        assert (error.code, bool(error.retry_after)) == (grpc.StatusCode.UNAVAILABLE, True)
        await two.cancel(job.name)
        seen += await _collect(two, job.name, seen[-1].sequence)
    assert [event.sequence for event in seen] == [1, 2]
