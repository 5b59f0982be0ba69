"""Callers that cancel, that set deadlines, that come in floods; and a pod that stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard.core.errors import RemoteError
from modelyard.oip import open_inference_pb2 as pb
from support import graphs
from support.identity import Identity
from support.inference_pod import Pod, infer_request, output, row, running_pod
from support.served_registry import ServedRegistry
from support.waiting import eventually

Code = grpc.StatusCode


def long_request() -> pb.ModelInferRequest:
    """Some hundred milliseconds of work."""
    return infer_request("slow", {"x": np.ones((48, 700), np.float32)})


@pytest.fixture
async def narrow(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> AsyncIterator[Pod]:
    """A pod that computes one prediction at a time and lets two wait."""
    registry.add("slow", graphs.slow())
    settings = {"runners": 1, "queue_size": 2, "batching": False}
    async with running_pod(registry_address, identity, tmp_path / "narrow", **settings) as pod:
        await pod.until_ready("slow")
        yield pod


async def counted(pod: Pod) -> pb.ModelStatistics:
    (one,) = (await pod.stub.ModelStatistics(pb.ModelStatisticsRequest(name="slow"))).model_stats
    return one


async def test_a_flood_beyond_the_queue_is_told_to_come_back_and_the_rest_is_answered(narrow: Pod) -> None:
    calls = [asyncio.create_task(narrow.infer(long_request())) for _ in range(12)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    answered = [result for result in results if isinstance(result, pb.ModelInferResponse)]
    refused = [result for result in results if isinstance(result, RemoteError)]
    assert len(answered) >= 3
    assert len(answered) + len(refused) == 12
    assert refused
    assert {(error.code, error.reason) for error in refused} == {(Code.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED")}
    assert all(error.retry_after for error in refused)
    stages = (await counted(narrow)).inference_stats
    assert (stages.success.count, stages.fail.count) == (len(answered), len(refused))


async def test_a_timeout_that_passes_in_the_queue_ends_the_wait(narrow: Pod) -> None:
    blockers = [asyncio.create_task(narrow.infer(long_request())) for _ in range(2)]
    await asyncio.wait(blockers, return_when=asyncio.FIRST_COMPLETED)  # the other is being computed
    hurried = long_request()
    hurried.parameters["timeout"].int64_param = 1  # microsecond
    with pytest.raises(RemoteError) as raised:
        await narrow.infer(hurried)
    assert (raised.value.code, raised.value.reason) == (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    await asyncio.gather(*blockers)
    counts = await counted(narrow)
    assert (counts.execution_count, counts.inference_stats.fail.count) == (2, 1)


async def test_a_generous_timeout_and_zero_change_nothing(narrow: Pod) -> None:
    for microseconds in (0, 60_000_000):
        request = infer_request("slow", {"x": np.ones((1, 700), np.float32)})
        request.parameters["timeout"].int64_param = microseconds
        assert output(await narrow.infer(request))[0][0] == 1


async def test_a_cancelled_request_is_not_computed_and_its_neighbours_are_answered(narrow: Pod) -> None:
    first = asyncio.create_task(narrow.infer(long_request()))
    others = [asyncio.create_task(narrow.infer(long_request())) for _ in range(2)]
    await asyncio.wait([first, *others], return_when=asyncio.FIRST_COMPLETED)
    waiting = [call for call in others if not call.done()]
    waiting[-1].cancel()
    results = await asyncio.gather(first, *others, return_exceptions=True)
    assert sum(isinstance(result, pb.ModelInferResponse) for result in results) == 2

    async def settled() -> bool:
        return (await counted(narrow)).inference_stats.fail.count == 1

    await eventually(settled)
    assert (await counted(narrow)).execution_count == 2


async def test_what_is_past_its_deadline_is_not_computed(narrow: Pod) -> None:
    blockers = [asyncio.create_task(narrow.infer(long_request())) for _ in range(2)]
    await asyncio.wait(blockers, return_when=asyncio.FIRST_COMPLETED)
    late = [narrow.infer(long_request(), timeout=0.02) for _ in range(2)]
    results = await asyncio.gather(*late, return_exceptions=True)
    assert {result.code for result in results if isinstance(result, RemoteError)} == {Code.DEADLINE_EXCEEDED}
    await asyncio.gather(*blockers)
    await narrow.infer(long_request())  # the queue is a FIFO: what was before it is done with
    counts = await counted(narrow)
    assert (counts.execution_count, counts.inference_stats.success.count) == (3, 3)


async def test_a_stopping_pod_says_so_first_and_answers_what_it_has(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    registry.add("slow", graphs.slow())
    async with running_pod(registry_address, identity, tmp_path / "pod", drain_delay_s=0.3) as pod:
        await pod.until_ready("slow")
        watch = health_pb2_grpc.HealthStub(pod.channel).Watch(health_pb2.HealthCheckRequest())
        told = [answer.status async for answer in _first(watch)]
        calls = [asyncio.create_task(pod.infer(long_request())) for _ in range(4)]
        stopping = asyncio.create_task(pod.running.stop())
        told += [answer.status async for answer in _first(watch)]
        assert told == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
        # It says that it goes, and still takes calls until the door has looked away.
        assert not (await pod.stub.ServerReady(pb.ServerReadyRequest())).ready
        assert not (await pod.stub.ModelReady(pb.ModelReadyRequest(name="slow"))).ready
        calls.append(asyncio.create_task(pod.infer(long_request())))
        for response in await asyncio.gather(*calls):
            assert output(response)[0][0] == 1
        await stopping


async def _first(
    stream: AsyncIterator[health_pb2.HealthCheckResponse],
) -> AsyncIterator[health_pb2.HealthCheckResponse]:
    """One message of a stream."""
    async for message in stream:
        yield message
        return


async def test_other_models_answer_while_one_is_flooded(registry: ServedRegistry, narrow: Pod) -> None:
    registry.add("scale", graphs.scale(2))
    await narrow.until_ready("scale")
    flood = [asyncio.create_task(narrow.infer(long_request())) for _ in range(12)]
    for _ in range(20):
        assert output(await narrow.predict("scale", row(1, 2))) == [[2, 4]]
    await asyncio.gather(*flood, return_exceptions=True)
