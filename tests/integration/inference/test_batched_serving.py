"""Requests that a real pod computes together, and those that it must not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from onnx import TensorProto, helper

from modelyard.core.errors import RemoteError
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.tensors import output_arrays
from modelyard.v1 import model_pb2
from support import graphs
from support.identity import Identity
from support.inference_pod import Pod, infer_request, output, row, running_pod
from support.served_registry import ServedRegistry
from support.waiting import eventually

FOR_EVER = 2**62


def whole_numbers(*values: int) -> dict[str, np.ndarray]:
    """Integers [rows, 1] for the input `x`."""
    return {"x": np.array(values, np.int64).reshape(-1, 1)}


def serve(registry: ServedRegistry, model: str, content: bytes, **serving: object) -> None:
    """Adds a version that is served in this way."""
    registry.add(model, content)
    registry.models[model].serving.CopyFrom(model_pb2.ServingConfig(**serving))  # type: ignore[arg-type]
    registry.changed(model)


async def config_of(pod: Pod, model: str) -> pb.ModelConfig:
    return (await pod.stub.ModelConfig(pb.ModelConfigRequest(name=model))).config


async def test_a_crowd_is_computed_together_and_everybody_gets_their_own_answer(
    registry: ServedRegistry, pod: Pod
) -> None:
    serve(registry, "slow", graphs.slow(), batching=model_pb2.ServingConfig.BATCHING_ON, runners=1, max_batch_size=16)
    await pod.until_ready("slow")
    config = await config_of(pod, "slow")
    assert config.max_batch_size == 16
    assert 2 <= config.dynamic_batching.preferred_batch_size[0] <= 16
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert (config.dynamic_batching.priority_levels, config.dynamic_batching.default_priority_level) == (100, 50)
    assert config.instance_group[0].count == 1
    assert config.parameters["batching"].string_value == "requests are joined: so the settings say"
    assert config.parameters["measured_us"].string_value.startswith("1:")

    async def one(number: int) -> None:
        rows = 1 + number % 3
        answer = output(await pod.predict("slow", {"x": np.full((rows, 700), number, np.float32)}))
        assert np.allclose(answer, np.full((rows, 700), number))

    await asyncio.gather(*(one(number) for number in range(40)))
    (counted,) = (await pod.stub.ModelStatistics(pb.ModelStatisticsRequest(name="slow"))).model_stats
    assert counted.inference_count == sum(1 + number % 3 for number in range(40))
    assert counted.execution_count < counted.inference_stats.success.count == 40
    assert sum(batch.batch_size * batch.compute_infer.count for batch in counted.batch_stats) == counted.inference_count
    assert max(batch.batch_size for batch in counted.batch_stats) <= 16


async def test_a_graph_whose_rows_depend_on_one_another_answers_as_if_everybody_were_alone(
    registry: ServedRegistry, pod: Pod
) -> None:
    shape = (TensorProto.FLOAT, ("batch", 2))
    node = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    content = graphs.graph([node], {"x": shape}, {"y": shape})
    serve(registry, "softmax", content, batching=model_pb2.ServingConfig.BATCHING_ON)
    await pod.until_ready("softmax")
    answers = await asyncio.gather(*(pod.predict("softmax", row(number, -number)) for number in range(30)))
    assert [output(answer) for answer in answers] == [[[1, 1]]] * 30
    config = await config_of(pod, "softmax")
    assert not config.HasField("dynamic_batching")
    assert "depend on one another" in config.parameters["batching"].string_value


async def test_requests_of_many_shapes_come_out_right(registry: ServedRegistry, pod: Pod) -> None:
    serve(registry, "free", graphs.identity(TensorProto.FLOAT, ("batch", "n")), batching=1)
    await pod.until_ready("free")

    async def one(number: int) -> None:
        shape = (1 + number % 3, 1 + number % 4)
        answer = output(await pod.predict("free", {"x": np.full(shape, number, np.float32)}))
        assert answer == np.full(shape, number).tolist()

    await asyncio.gather(*(one(number) for number in range(60)))


async def test_a_bad_value_fails_its_sender_alone(registry: ServedRegistry, pod: Pod) -> None:
    serve(registry, "lookup", graphs.lookup(), batching=model_pb2.ServingConfig.BATCHING_ON)
    await pod.until_ready("lookup")
    values = [0, 99, 1, 2, 99, 0] * 5
    calls = [pod.predict("lookup", whole_numbers(value)) for value in values]
    for value, result in zip(values, await asyncio.gather(*calls, return_exceptions=True), strict=True):
        if value == 99:
            assert isinstance(result, RemoteError)
            assert result.code == grpc.StatusCode.INVALID_ARGUMENT
        else:
            assert isinstance(result, pb.ModelInferResponse)
            assert output(result) == [[10 * value + 10]]


async def test_a_run_without_end_is_stopped_when_its_callers_have_left(registry: ServedRegistry, pod: Pod) -> None:
    serve(registry, "counting", graphs.counting(), runners=1)
    await pod.until_ready("counting")
    endless = infer_request("counting", whole_numbers(FOR_EVER))
    with pytest.raises(RemoteError) as raised:
        await pod.infer(endless, timeout=0.3)
    assert raised.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
    left = asyncio.create_task(pod.infer(endless))
    waiting = asyncio.create_task(pod.predict("counting", whole_numbers(5)))
    await asyncio.wait([waiting], timeout=0.2)
    left.cancel()
    assert output_arrays(await waiting)["y"].tolist() == [[5]]
    endless.parameters["timeout"].int64_param = 100_000  # microseconds
    with pytest.raises(RemoteError) as raised:
        await pod.infer(endless)
    assert raised.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert output_arrays(await pod.predict("counting", whole_numbers(7)))["y"].tolist() == [[7]]


async def test_a_run_without_end_does_not_keep_a_pod_from_stopping(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    serve(registry, "counting", graphs.counting(), runners=1)
    async with running_pod(registry_address, identity, tmp_path / "pod", shutdown_grace_s=0.2) as pod:
        await pod.until_ready("counting")
        endless = asyncio.create_task(pod.predict("counting", whole_numbers(FOR_EVER)))

        async def the_only_runner_is_taken() -> bool:
            try:
                await pod.infer(infer_request("counting", whole_numbers(1)), timeout=0.3)
            except RemoteError as error:
                return error.code == grpc.StatusCode.DEADLINE_EXCEEDED
            return False

        await eventually(the_only_runner_is_taken)
        registry.add("counting", graphs.scale(2))  # the version that computes is to retire
        await pod.until_state("counting", 1, "UNLOADING")
    with pytest.raises((RemoteError, asyncio.CancelledError)):  # from the pod, or from the channel that is closed
        await endless
