"""Streams of predictions over a real channel: clients that finish, cancel, run out of time, vanish, or do not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest

from modelyard.core.channels import aio_channel, fixed_token
from modelyard.core.errors import RemoteError
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import AioInferenceStub, method_path
from support import graphs
from support.identity import Identity
from support.inference_pod import Pod, infer_request, output, row, running_pod
from support.served_registry import ServedRegistry
from support.waiting import eventually

Code = grpc.StatusCode


@pytest.fixture
async def streaming(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> AsyncIterator[Pod]:
    """A pod that takes four requests of a stream at once; `scale` doubles."""
    registry.add("scale", graphs.scale(2))
    async with running_pod(registry_address, identity, tmp_path / "pod", stream_requests=4, runners=1) as pod:
        await pod.until_ready("scale")
        yield pod


@pytest.fixture
async def hesitant(registry: ServedRegistry, streaming: Pod) -> Pod:
    """The same with `slow`, which takes its time."""
    registry.add("slow", graphs.slow())
    await streaming.until_ready("slow")
    return streaming


def numbered(number: int) -> pb.ModelInferRequest:
    request = infer_request("scale", row(number, 0))
    request.id = str(number)
    return request


def slow_request() -> pb.ModelInferRequest:
    return infer_request("slow", {"x": np.ones((48, 700), np.float32)})


async def counted(pod: Pod, model: str) -> pb.InferStatistics:
    (one,) = (await pod.stub.ModelStatistics(pb.ModelStatisticsRequest(name=model))).model_stats
    return one.inference_stats


async def settled(pod: Pod, model: str, total: int) -> pb.InferStatistics:
    """The statistics when so many requests have come to an end."""

    async def probe() -> pb.InferStatistics | None:
        stages = await counted(pod, model)
        return stages if stages.success.count + stages.fail.count == total else None

    stages = await eventually(probe)
    assert stages is not None
    return stages


async def failure(stream: grpc.aio.StreamStreamCall[pb.ModelInferRequest, pb.ModelStreamInferResponse]) -> RemoteError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stream.read()
    return RemoteError.from_rpc(raised.value)


async def test_many_requests_of_one_stream_are_answered_in_order_and_counted(streaming: Pod) -> None:
    replies = [reply async for reply in streaming.stub.ModelStreamInfer(iter(map(numbered, range(300))))]
    assert [reply.infer_response.id for reply in replies] == [str(number) for number in range(300)]
    assert [output(reply.infer_response) for reply in replies] == [[[2 * number, 0]] for number in range(300)]
    assert (await counted(streaming, "scale")).success.count == 300


async def test_a_conversation_gets_each_answer_before_it_asks_again(streaming: Pod) -> None:
    stream = streaming.stub.ModelStreamInfer()
    for number in range(5):
        await stream.write(numbered(number))
        assert output((await stream.read()).infer_response) == [[2 * number, 0]]
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is Code.OK


async def test_a_client_that_does_not_read_is_not_read_from(streaming: Pod) -> None:
    """Answers fill the connection long before an endless stream of requests is over."""
    wide = infer_request("scale", {"x": np.ones((1024, 2), np.float32)})
    sent = 0

    async def endless() -> AsyncIterator[pb.ModelInferRequest]:
        nonlocal sent
        while True:
            sent += 1
            yield wide

    stream = streaming.stub.ModelStreamInfer(endless())
    await stream.read()
    seen = -1

    async def stands_still() -> bool:
        nonlocal seen
        before, seen = seen, (await counted(streaming, "scale")).success.count
        return before == seen

    await eventually(stands_still, interval=0.5)
    assert seen < sent
    stream.cancel()
    await settled(streaming, "scale", seen)
    assert output(await streaming.predict("scale", row(1, 2))) == [[2, 4]]


async def test_a_stream_that_is_cancelled_leaves_nothing_running(hesitant: Pod) -> None:
    stream = hesitant.stub.ModelStreamInfer()
    for _ in range(4):
        await stream.write(slow_request())
    await stream.read()
    stream.cancel()
    stages = await settled(hesitant, "slow", 4)
    assert stages.fail.count >= 1
    assert output(await hesitant.predict("scale", row(1, 2))) == [[2, 4]]


async def test_a_deadline_counts_for_the_whole_stream(streaming: Pod) -> None:
    stream = streaming.stub.ModelStreamInfer(timeout=0.3)
    await stream.write(numbered(1))
    assert output((await stream.read()).infer_response) == [[2, 0]]
    assert (await failure(stream)).code is Code.DEADLINE_EXCEEDED


async def test_a_client_that_vanishes_in_the_middle_is_survived(hesitant: Pod, identity: Identity) -> None:
    for _ in range(10):
        async with aio_channel(hesitant.address, fixed_token(identity.token())) as channel:
            stream = AioInferenceStub(channel).ModelStreamInfer()
            await stream.write(slow_request())
            await stream.write(numbered(1))
    assert output(await hesitant.predict("scale", row(1, 2))) == [[2, 4]]
    stages = await counted(hesitant, "slow")
    await settled(hesitant, "slow", stages.success.count + stages.fail.count)


async def test_bytes_that_are_no_message_end_the_stream_behind_what_came_before(streaming: Pod) -> None:
    call = streaming.channel.stream_stream(method_path("ModelStreamInfer"))
    stream = call(iter([numbered(1).SerializeToString(), b"\x0a\xff\xff\xff\xff\x0f"]))
    assert pb.ModelStreamInferResponse.FromString(await stream.read()).infer_response.id == "1"
    error = await failure(stream)
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "MALFORMED_CONTENT")


async def test_a_stream_ends_with_its_token(streaming: Pod, identity: Identity) -> None:
    # The clocks of two machines may differ by five seconds, so a token is taken so long after its end.
    token = identity.token("predictor", lifetime_s=-4)
    async with aio_channel(streaming.address, fixed_token(token)) as channel:
        stream = AioInferenceStub(channel).ModelStreamInfer()
        await stream.write(numbered(1))
        error = await failure(stream)
    assert (error.code, error.reason) == (Code.UNAUTHENTICATED, "TOKEN_EXPIRED")


async def test_streams_side_by_side_get_their_own_answers(streaming: Pod) -> None:
    async def one(first: int) -> list[str]:
        requests = iter([numbered(number) for number in range(first, first + 50)])
        return [reply.infer_response.id async for reply in streaming.stub.ModelStreamInfer(requests)]

    answers = await asyncio.gather(*(one(1000 * stream) for stream in range(8)))
    assert answers == [[str(1000 * stream + number) for number in range(50)] for stream in range(8)]


async def test_statistics_add_up_over_calls_and_streams_answered_refused_and_cancelled(hesitant: Pod) -> None:
    scale, wrong = [numbered(number) for number in range(30)], numbered(1)
    wrong.inputs[0].shape[:] = [1, 3]
    three_rows = infer_request("scale", {"x": np.ones((3, 2), np.float32)})
    replies = [r async for r in hesitant.stub.ModelStreamInfer(iter([*scale, wrong, three_rows]))]
    assert sum(bool(reply.error_message) for reply in replies) == 1
    await asyncio.gather(*(hesitant.infer(request) for request in scale))
    slow = [asyncio.create_task(hesitant.infer(slow_request())) for _ in range(4)]
    await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
    for call in slow:
        call.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    stages = await settled(hesitant, "slow", 4)
    assert stages.success.count >= 1
    answer = await hesitant.stub.ModelStatistics(pb.ModelStatisticsRequest())
    by_name = {one.name: one for one in answer.model_stats}
    counted_scale = by_name["scale"].inference_stats
    assert (counted_scale.success.count, counted_scale.fail.count) == (61, 1)
    assert by_name["scale"].inference_count == 63
    for one in answer.model_stats:
        stages = one.inference_stats
        for stage in (stages.queue, stages.compute_input, stages.compute_infer, stages.compute_output):
            assert stage.count == stages.success.count
            assert stage.ns <= stages.success.ns
        assert sum(batch.compute_infer.count for batch in one.batch_stats) == one.execution_count
        assert sum(batch.batch_size * batch.compute_infer.count for batch in one.batch_stats) == one.inference_count
        assert one.execution_count <= stages.success.count + stages.fail.count
        assert one.last_inference > 1_700_000_000_000
