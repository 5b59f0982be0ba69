"""Versions that do harm when they compute: refused at load or stopped at run time; the pod and its callers go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from modelyard.core.errors import RemoteError
from support import graphs, hostile_graphs
from support.external_graphs import external
from support.identity import Identity
from support.inference_pod import Pod, output, row, running_pod
from support.served_registry import ServedRegistry

FOR_EVER = 2.0**62


@pytest.fixture
async def guarded(registry_address: str, identity: Identity, tmp_path: Path) -> AsyncIterator[Pod]:
    """A pod that tries versions before it loads them."""
    async with running_pod(
        registry_address, identity, tmp_path / "pod", trial_loads=True, trial_time_s=60, max_run_s=1
    ) as pod:
        yield pod


async def refusal(pod: Pod, model: str, value: float) -> RemoteError:
    with pytest.raises(RemoteError) as raised:
        await pod.predict(model, row(value))
    return raised.value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (hostile_graphs.looping(FOR_EVER), "it computes zeros for longer than 0.5 s"),
        (hostile_graphs.allocating(1e11), "takes more than"),
        (external(3, 1)[0], "the graph points to the file 'weights.bin'; expected none but its own"),
        (graphs.scale(3)[:-20], "not a whole ONNX file"),
    ],
    ids=["endless", "boundless", "another file", "cut off"],
)
async def test_a_hostile_version_is_refused_and_the_old_one_stays(
    content: bytes, reason: str, registry: ServedRegistry, guarded: Pod
) -> None:
    registry.add("model", graphs.scale(2, 1))
    await guarded.until_ready("model")
    registry.add("model", content)
    assert reason in await guarded.until_state("model", 2, "UNAVAILABLE")
    assert output(await guarded.predict("model", row(1))) == [[2]]


async def test_without_a_trial_an_endless_version_is_found_out_at_load(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    async with running_pod(registry_address, identity, tmp_path / "pod", trial_loads=False, max_run_s=0.5) as pod:
        registry.add("model", hostile_graphs.looping(FOR_EVER))
        assert "it computes zeros for longer than 0.5 s" in await pod.until_state("model", 1, "UNAVAILABLE")


async def test_what_was_tried_once_is_not_tried_again(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    registry.add("model", graphs.scale(2, 1))
    async with running_pod(registry_address, identity, tmp_path / "pod", trial_loads=True) as pod:
        await pod.until_ready("model")
    (record,) = (tmp_path / "pod" / "cache" / "trials").iterdir()
    written = record.stat().st_mtime_ns
    async with running_pod(registry_address, identity, tmp_path / "pod", trial_loads=True) as pod:
        await pod.until_ready("model")
    assert record.stat().st_mtime_ns == written


async def test_a_version_that_turns_endless_is_stopped_and_others_are_answered(
    registry: ServedRegistry, guarded: Pod
) -> None:
    registry.add("endless", hostile_graphs.looping())
    registry.add("good", graphs.scale(2, 1))
    await guarded.until_ready("endless")
    await guarded.until_ready("good")
    stuck = asyncio.create_task(refusal(guarded, "endless", FOR_EVER))
    while not stuck.done():
        assert output(await guarded.predict("good", row(1))) == [[2]]
    error = await stuck
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "computed for longer than 1 s" in error.message
    assert output(await guarded.predict("endless", row(3))) == [[24]]


async def test_a_version_that_turns_boundless_is_refused_its_memory(registry: ServedRegistry, guarded: Pod) -> None:
    registry.add("boundless", hostile_graphs.allocating())
    await guarded.until_ready("boundless")
    error = await refusal(guarded, "boundless", 1e11)
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "takes more memory than there is" in error.message
    assert output(await guarded.predict("boundless", row(3))) == [[6]]


async def test_a_pod_stops_within_its_grace_while_a_graph_never_ends(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    registry.add("endless", hostile_graphs.looping())
    async with running_pod(registry_address, identity, tmp_path / "pod", max_run_s=3600, shutdown_grace_s=0.5) as pod:
        await pod.until_ready("endless")
        stuck = asyncio.create_task(refusal(pod, "endless", FOR_EVER))
        await asyncio.wait([stuck], timeout=0.2)
        assert not stuck.done()
    # Leaving the block has stopped the pod; as long as the run goes on, that would not return.
    assert isinstance((await asyncio.gather(stuck, return_exceptions=True))[0], BaseException)
