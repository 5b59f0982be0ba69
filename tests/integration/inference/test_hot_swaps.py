"""New versions come, good and bad, while callers keep calling: none of them notices anything but the new answers."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from onnx import TensorProto, helper

from modelyard.core.errors import RemoteError
from modelyard.oip import open_inference_pb2 as pb
from support import graphs
from support.identity import Identity
from support.inference_pod import Pod, output, row, running_pod
from support.served_registry import ServedRegistry
from support.waiting import eventually

CALLERS = 8
REQUESTS = 2_000


async def test_no_request_fails_while_versions_are_swapped_under_load(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("scale", graphs.scale(1))
    await pod.until_ready("scale")
    answered: list[int] = []
    swapped = asyncio.Event()

    async def call_until_swapped() -> None:
        while len(answered) < REQUESTS or not swapped.is_set():
            response = await pod.predict("scale", row(1, 2))
            version = int(response.model_version)
            # Each answer is entirely one version's: its number and its arithmetic.
            assert output(response) == [[version, 2 * version]]
            answered.append(version)

    async def more_answers(count: int) -> None:
        enough = len(answered) + count

        async def there() -> bool:
            return len(answered) >= enough

        await eventually(there)

    async def swap() -> None:
        for factor in (2, 3, 4, 5):
            await more_answers(REQUESTS // 8)
            registry.add("scale", graphs.scale(factor))
            await pod.until_ready("scale", str(factor))
        swapped.set()

    await asyncio.gather(swap(), *(call_until_swapped() for _ in range(CALLERS)))
    assert len(answered) >= REQUESTS
    assert set(answered) == {1, 2, 3, 4, 5}
    assert answered[-1] == 5


async def test_what_no_alias_points_to_is_freed(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("scale", graphs.scale(1))
    await pod.until_ready("scale")
    registry.add("scale", graphs.scale(2))
    await pod.until_ready("scale", "2")

    async def only_the_new_one() -> bool:
        return await pod.index() == {("scale", "2"): ("READY", "")}

    await eventually(only_the_new_one)
    with pytest.raises(RemoteError) as raised:
        await pod.predict("scale", row(1, 2), "1")
    assert raised.value.code is grpc.StatusCode.NOT_FOUND


async def test_a_running_request_is_answered_by_the_version_it_began_with(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("model", graphs.slow())
    await pod.until_ready("model")
    rows = {"x": np.ones((256, 700), np.float32)}
    running = [asyncio.create_task(pod.predict("model", rows)) for _ in range(6)]
    await asyncio.gather(*running[:1])  # the others run or wait
    registry.add("model", graphs.scale(2))
    await pod.until_ready("model", "2")
    versions = [response.model_version for response in await asyncio.gather(*running)]
    assert versions == ["1"] * 6
    assert (await pod.predict("model", row(1, 2))).model_version == "2"


def opset_of_the_future() -> bytes:
    floats = (TensorProto.FLOAT, ("batch", 2))
    node = helper.make_node("Identity", ["x"], ["y"])
    return graphs.graph([node], {"x": floats}, {"y": floats}, opset=999)


BROKEN = {
    "truncated": (lambda: graphs.scale(7)[:-9], {}, "not a whole ONNX file"),
    "no graph at all": (lambda: b"PK\x03\x04 not a graph", {}, "not a whole ONNX file"),
    "operator set unknown": (opset_of_the_future, {}, "operator set 999"),
    "works with one row only": (graphs.only_batch_one, {}, "the graph fails on zeros"),
    "size recorded wrongly": (lambda: graphs.scale(7), {"size_bytes": 20}, "SHA-256|expected at most"),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_new_version_is_refused_and_the_old_one_stays(
    kind: str, registry: ServedRegistry, pod: Pod
) -> None:
    content, facts, reason = BROKEN[kind]
    registry.add("scale", graphs.scale(1))
    await pod.until_ready("scale")
    registry.add("scale", content(), **facts)
    told = await pod.until_state("scale", 2, "UNAVAILABLE")
    assert re.search(reason, told), told
    assert "cache" not in told
    assert output(await pod.predict("scale", row(1, 2))) == [[1, 2]]
    with pytest.raises(RemoteError) as raised:
        await pod.predict("scale", row(1, 2), "2")
    assert (raised.value.code, raised.value.retry_after) == (grpc.StatusCode.UNAVAILABLE, 1.0)
    # The next good one takes over.
    registry.add("scale", graphs.scale(3))
    await pod.until_ready("scale", "3")
    assert output(await pod.predict("scale", row(1, 2))) == [[3, 6]]


async def test_a_graph_other_than_the_registry_recorded_is_refused(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("scale", graphs.scale(1))
    registry.models["scale"].versions[0].model_version.inputs[0].shape[1] = 3
    registry.changed("scale")
    told = await pod.until_state("scale", 1, "UNAVAILABLE")
    assert "recorded the inputs x FP32 [-1, 3]; the graph has x FP32 [-1, 2]" in told


async def test_corrupt_content_is_refused_until_the_store_sends_the_right_one(
    registry: ServedRegistry, pod: Pod
) -> None:
    registry.add("scale", graphs.scale(1))
    await pod.until_ready("scale")
    registry.store.faults.corrupt = True
    registry.add("scale", graphs.scale(2))
    assert "SHA-256" in await pod.until_state("scale", 2, "UNAVAILABLE")
    assert output(await pod.predict("scale", row(1, 2))) == [[1, 2]]
    registry.store.faults.corrupt = False
    await pod.until_ready("scale", "2")
    assert output(await pod.predict("scale", row(1, 2))) == [[2, 4]]


async def test_a_version_that_was_never_loaded_is_unavailable_not_unknown(registry: ServedRegistry, pod: Pod) -> None:
    registry.store.faults.away = True
    registry.add("scale", graphs.scale(1))

    async def refused() -> RemoteError | None:
        try:
            await pod.predict("scale", row(1, 2))
        except RemoteError as error:
            return error if "loaded" in error.message else None
        return None

    error = await eventually(refused)
    assert (error.code, error.retry_after) == (grpc.StatusCode.UNAVAILABLE, 1.0)
    assert not (await pod.stub.ModelReady(pb.ModelReadyRequest(name="scale"))).ready
    registry.store.faults.away = False
    await pod.until_ready("scale")


async def test_before_the_first_word_of_the_registry_everything_is_unavailable(
    identity: Identity, tmp_path: Path
) -> None:
    async with running_pod(f"unix:{tmp_path}/nobody.sock", identity, tmp_path / "pod") as pod:
        with pytest.raises(RemoteError) as raised:
            await pod.predict("scale", row(1, 2))
        assert not (await pod.stub.ServerReady(pb.ServerReadyRequest())).ready
    assert (raised.value.code, raised.value.retry_after) == (grpc.StatusCode.UNAVAILABLE, 1.0)


async def test_the_same_number_with_other_content_is_another_version(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("scale", graphs.scale(1))
    await pod.until_ready("scale")
    # A registry that was set up anew counts from 1 again.
    content = graphs.scale(9)
    version = registry.models["scale"].versions[0].model_version
    version.digest, version.size_bytes = registry.store.put(content), len(content)
    registry.changed("scale")

    async def new_answer() -> bool:
        return bool(output(await pod.predict("scale", row(1, 2))) == [[9, 18]])

    await eventually(new_answer)


async def test_an_alias_moves_back_at_once_to_a_version_that_is_still_served(
    registry: ServedRegistry, pod: Pod
) -> None:
    registry.add("scale", graphs.scale(1), aliases=("live", "stable"))
    registry.add("scale", graphs.scale(2), aliases=("live",))
    await pod.until_ready("scale", "2")
    registry.point("scale", "live", 1)

    async def back() -> bool:
        return (await pod.predict("scale", row(1, 2))).model_version == "1"

    await eventually(back)


async def test_a_model_without_aliases_is_no_longer_known(registry: ServedRegistry, pod: Pod) -> None:
    registry.add("scale", graphs.scale(1))
    await pod.until_ready("scale")
    registry.point("scale", "live", None)

    async def gone() -> bool:
        return await pod.index() == {}

    await eventually(gone)
    with pytest.raises(RemoteError) as raised:
        await pod.predict("scale", row(1, 2))
    assert (raised.value.code, raised.value.metadata["resource"]) == (grpc.StatusCode.NOT_FOUND, "models/scale")


class TestExplicitUnload:
    """What Triton's clients may ask for, on one pod."""

    async def test_an_unloaded_model_is_not_found_until_it_is_loaded(self, registry: ServedRegistry, pod: Pod) -> None:
        registry.add("scale", graphs.scale(1))
        await pod.until_ready("scale")
        await pod.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="scale"))
        with pytest.raises(RemoteError) as raised:
            await pod.predict("scale", row(1, 2))
        assert raised.value.code is grpc.StatusCode.NOT_FOUND
        assert "unloaded" in raised.value.message
        assert await pod.until_state("scale", 1, "UNAVAILABLE") == "unloaded by request"
        await pod.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="scale"))
        assert output(await pod.predict("scale", row(1, 2))) == [[1, 2]]

    async def test_a_change_in_the_registry_ends_it(self, registry: ServedRegistry, pod: Pod) -> None:
        registry.add("scale", graphs.scale(1))
        await pod.until_ready("scale")
        await pod.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="scale"))
        registry.add("scale", graphs.scale(2))
        await pod.until_ready("scale", "2")

    async def test_unloading_an_unknown_model_and_loading_a_served_one_change_nothing(
        self, registry: ServedRegistry, pod: Pod
    ) -> None:
        registry.add("scale", graphs.scale(1))
        await pod.until_ready("scale")
        await pod.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="other"))
        await pod.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="scale"))
        assert await pod.index() == {("scale", "1"): ("READY", "")}

    async def test_loading_what_cannot_be_loaded_says_why(self, registry: ServedRegistry, pod: Pod) -> None:
        registry.add("scale", graphs.scale(1)[:-9])
        await pod.until_state("scale", 1, "UNAVAILABLE")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await pod.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="scale"))
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "not a whole ONNX file" in (raised.value.details() or "")

    async def test_what_is_to_be_served_is_the_registry_s_affair(self, registry: ServedRegistry, pod: Pod) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await pod.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="other"))
        request = pb.RepositoryModelLoadRequest(model_name="other")
        request.parameters["config"].string_param = "{}"
        with pytest.raises(grpc.aio.AioRpcError) as configured:
            await pod.stub.RepositoryModelLoad(request)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        assert configured.value.code() is grpc.StatusCode.INVALID_ARGUMENT
