"""More models than fit in memory: what is not used leaves, a request brings it back, nobody hears NOT_FOUND."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from modelyard.core.errors import RemoteError
from modelyard.oip import open_inference_pb2 as pb
from support import graphs
from support.grpc_server import serve
from support.identity import Identity
from support.inference_pod import Pod, output, row, running_pod
from support.served_registry import ServedRegistry
from support.waiting import eventually

WEIGHTS = 25_000  # floats: a file of a little more than 100 kB
ROOM = 2 * (4 * WEIGHTS + 1000)
"""What the pod reckons for one such model, which nobody has tried: twice its file."""


@pytest.fixture
def cramped(registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path) -> Any:
    """A pod with room for so many models, which have been added when it is ready."""

    @asynccontextmanager
    async def pod(models: int, *, room_for: float, **settings: Any) -> AsyncIterator[Pod]:
        for number in range(models):
            registry.add(f"m{number}", graphs.weighty(number, WEIGHTS))
        budget = {"memory_budget_bytes": int(room_for * ROOM), "memory_turn_s": 0, **settings}
        async with running_pod(registry_address, identity, tmp_path / "pod", **budget) as pod:

            async def ready() -> bool:
                return (await pod.stub.ServerReady(pb.ServerReadyRequest())).ready

            await eventually(ready)
            yield pod

    return pod


async def loaded(pod: Pod) -> set[str]:
    return {model for (model, _), (state, _) in (await pod.index()).items() if state == "READY"}


async def refusal(pod: Pod, model: str) -> RemoteError:
    with pytest.raises(RemoteError) as raised:
        await pod.predict(model, row(1))
    return raised.value


async def test_what_does_not_fit_is_loaded_in_place_of_what_was_used_longest_ago(cramped: Any) -> None:
    async with cramped(3, room_for=2.5) as pod:
        (parked,) = {"m0", "m1", "m2"} - await loaded(pod)
        state, reason = (await pod.index())[parked, "1"]
        assert (state, reason) == ("UNAVAILABLE", "unloaded to save memory; a request has it loaded again")
        await pod.until_ready(parked)  # for a request it is
        oldest, newest = sorted({"m0", "m1", "m2"} - {parked})
        for model in (oldest, newest):
            assert output(await pod.predict(model, row(1))) == [[float(model[1])]]
        assert output(await pod.predict(parked, row(1))) == [[float(parked[1])]]
        assert await loaded(pod) == {parked, newest}
        assert output(await pod.predict(oldest, row(1))) == [[float(oldest[1])]]


async def test_statistics_tell_what_a_version_takes(cramped: Any) -> None:
    async with cramped(1, room_for=2) as pod:
        answer = await pod.stub.ModelStatistics(pb.ModelStatisticsRequest(name="m0"))
        (usage,) = answer.model_stats[0].memory_usage
        assert usage.type == "CPU"
        assert 8 * WEIGHTS < usage.byte_size < ROOM


async def test_models_that_take_turns_are_all_answered(cramped: Any) -> None:
    async with cramped(6, room_for=3.2) as pod:
        order = random.Random(4)

        async def call() -> None:
            for _ in range(15):
                number = order.randrange(6)
                assert output(await pod.predict(f"m{number}", row(1))) == [[float(number)]]

        await asyncio.gather(*(call() for _ in range(8)))
        assert len(await loaded(pod)) <= 3


async def test_a_model_that_never_fits_says_so_and_costs_nobody_his_place(
    cramped: Any, registry: ServedRegistry
) -> None:
    async with cramped(2, room_for=2.2) as pod:
        registry.add("huge", graphs.weighty(9, 3 * WEIGHTS))
        await pod.until_state("huge", 1, "UNAVAILABLE")
        error = await refusal(pod, "huge")
        assert (error.code, error.retry_after) == (grpc.StatusCode.UNAVAILABLE, 1.0)
        assert "models/huge is not in memory: it takes 60" in error.message
        assert await loaded(pod) == {"m0", "m1"}


async def test_a_model_that_was_just_loaded_stays_for_its_turn(cramped: Any) -> None:
    async with cramped(2, room_for=1.5, memory_turn_s=3600) as pod:
        (first,) = await loaded(pod)
        (second,) = {"m0", "m1"} - {first}
        error = await refusal(pod, second)
        assert error.code is grpc.StatusCode.UNAVAILABLE
        assert "no more can be freed now" in error.message
        assert await loaded(pod) == {first}


async def test_waiting_is_bounded_in_number_and_time(cramped: Any) -> None:
    async with cramped(2, room_for=1.5, memory_turn_s=25, on_demand_waiters=1, on_demand_wait_s=0.5) as pod:
        (first,) = await loaded(pod)
        (second,) = {"m0", "m1"} - {first}
        errors = await asyncio.gather(refusal(pod, second), refusal(pod, second))
        assert {error.code for error in errors} == {
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        }
        assert all(error.retry_after for error in errors)
        assert output(await pod.predict(first, row(1))) == [[float(first[1])]]


async def test_a_new_version_of_a_model_in_service_finds_room(cramped: Any, registry: ServedRegistry) -> None:
    async with cramped(2, room_for=2.2) as pod:
        await pod.predict("m0", row(1))
        registry.add("m0", graphs.weighty(7, WEIGHTS))

        async def switched() -> bool:
            return bool(output(await pod.predict("m0", row(1))) == [[7]])

        await eventually(switched)
        assert output(await pod.predict("m1", row(1))) == [[1]]


async def test_a_new_version_that_does_not_fit_beside_the_old_one_is_refused(
    cramped: Any, registry: ServedRegistry
) -> None:
    async with cramped(1, room_for=1.5) as pod:
        registry.add("m0", graphs.weighty(7, WEIGHTS))
        reason = await pod.until_state("m0", 2, "UNAVAILABLE")
        assert "bytes of memory" in reason
        assert output(await pod.predict("m0", row(1))) == [[0]]


async def test_a_parked_model_comes_back_while_the_registry_is_away(
    registry: ServedRegistry, identity: Identity, tmp_path: Path
) -> None:
    for number in range(2):
        registry.add(f"m{number}", graphs.weighty(number, WEIGHTS))
    settings: Any = {"memory_budget_bytes": int(1.5 * ROOM), "memory_turn_s": 0}
    async with (
        serve(registry.service(), identity) as address,
        running_pod(address, identity, tmp_path / "pod", **settings) as pod,
    ):
        await pod.until_ready("m0")
        await pod.until_ready("m1")
    nobody = f"unix:{tmp_path}/nobody.sock"
    async with running_pod(nobody, identity, tmp_path / "pod", **settings) as pod:
        await pod.until_ready("m0")
        await pod.until_ready("m1")
        for number in (0, 1, 0, 1):
            assert output(await pod.predict(f"m{number}", row(1))) == [[float(number)]]


async def test_metadata_of_a_parked_model_brings_it_back_too(cramped: Any) -> None:
    async with cramped(2, room_for=1.5) as pod:
        for model in ("m0", "m1", "m0"):
            answer = await pod.stub.ModelMetadata(pb.ModelMetadataRequest(name=model))
            assert (answer.name, answer.versions) == (model, ["1"])
            assert await loaded(pod) == {model}


async def test_loading_by_request_brings_a_parked_model_back(cramped: Any) -> None:
    async with cramped(2, room_for=1.5) as pod:
        (first,) = await loaded(pod)
        (second,) = {"m0", "m1"} - {first}
        await pod.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=second))
        assert await loaded(pod) == {second}
