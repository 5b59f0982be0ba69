"""Versions tried in another process: what passes, what is refused and why, and what stays alive."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from modelyard.core.errors import MalformedContent, Unavailable
from modelyard.inference.execution.sessions import GraphSession, RuntimeOptions
from modelyard.inference.loading.trial_messages import TrialFacts, TrialTask
from modelyard.inference.loading.trials import Trials
from modelyard.inference.serving.desired import WantedTensor
from support import graphs, hostile_graphs
from support.waiting import eventually

MEBIBYTE = 1024 * 1024
X = WantedTensor("x", "FP32", (-1, 1))


@pytest.fixture
async def trials() -> AsyncIterator[Trials]:
    trials = Trials()
    yield trials
    await trials.close()


async def attempt(
    trials: Trials,
    folder: Path,
    content: bytes,
    *,
    inputs: tuple[WantedTensor, ...] = (),
    time_s: float = 60,
    run_s: float = 60,
) -> TrialFacts:
    path = folder / f"{abs(hash(content))}.onnx"
    path.write_bytes(content)
    task = TrialTask(
        str(path), inputs, (), graph_threads=1, mapped_weights=False, location="", warm_up_batch_sizes=(1, 2),
        memory_bytes=512 * MEBIBYTE, time_s=time_s, run_s=run_s,
    )  # fmt: skip
    return await trials.run(task)


async def test_a_good_version_passes_and_its_memory_is_measured(trials: Trials, tmp_path: Path) -> None:
    small = await attempt(trials, tmp_path, graphs.scale(2))
    large = await attempt(trials, tmp_path, graphs.slow(2000))  # weights of 16 MB
    assert 0 < small.memory_bytes < 15e6
    assert 16e6 < large.memory_bytes < 300e6


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (hostile_graphs.allocating(1e11), "takes more than 536870912 bytes of memory"),
        (hostile_graphs.allocating(1e9), "takes more than 536870912 bytes of memory"),
        (hostile_graphs.looping(2.0**62), "takes longer than 0.5 s"),
        (graphs.scale(2)[:-20], "not a whole ONNX file"),
        (b"", "not a whole ONNX file"),
    ],
    ids=["1e11 elements", "1e9 elements", "2^62 rounds", "cut off", "empty"],
)
async def test_a_hostile_version_is_refused_with_the_reason(
    content: bytes, reason: str, trials: Trials, tmp_path: Path
) -> None:
    with pytest.raises(MalformedContent) as raised:
        await attempt(trials, tmp_path, content, time_s=0.5 if "longer" in reason else 60)
    assert reason in raised.value.message


async def test_a_run_without_end_is_found_out_before_the_trials_time_is_over(trials: Trials, tmp_path: Path) -> None:
    with pytest.raises(MalformedContent, match=r"computes zeros for longer than 0\.5 s"):
        await attempt(trials, tmp_path, hostile_graphs.looping(2.0**62), time_s=3600, run_s=0.5)


async def test_an_endless_trial_holds_up_no_other(trials: Trials, tmp_path: Path) -> None:
    endless = asyncio.create_task(attempt(trials, tmp_path, hostile_graphs.looping(2.0**62)))
    await attempt(trials, tmp_path, graphs.scale(2))
    assert not endless.done()
    endless.cancel()
    await asyncio.gather(endless, return_exceptions=True)


async def test_what_the_registry_recorded_is_compared(trials: Trials, tmp_path: Path) -> None:
    with pytest.raises(MalformedContent, match=r"the registry recorded the inputs x FP32 \[-1, 1\]"):
        await attempt(trials, tmp_path, graphs.scale(2), inputs=(X,))


async def test_a_killed_trial_process_is_replaced(trials: Trials, tmp_path: Path) -> None:
    await attempt(trials, tmp_path, graphs.scale(2))
    process = (await trials._running())._process
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.to_thread(process.wait)
    assert (await attempt(trials, tmp_path, graphs.scale(3))).memory_bytes > 0


async def test_a_trial_that_fails_by_a_fault_of_ours_says_what_it_was(trials: Trials, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="could not be tried: itimer_error: "):
        await attempt(trials, tmp_path, graphs.scale(2), time_s=-1)
    await attempt(trials, tmp_path, graphs.scale(3))


async def test_nothing_is_left_when_the_trials_are_closed(trials: Trials, tmp_path: Path) -> None:
    endless = asyncio.create_task(attempt(trials, tmp_path, hostile_graphs.looping(2.0**62)))
    await attempt(trials, tmp_path, graphs.scale(2))
    group = (await trials._running())._process.pid
    await trials.close()
    with pytest.raises(Unavailable, match="the pod is stopping"):
        await endless
    await eventually(partial(is_gone, group))


async def is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_graphs_are_harmless_until_told(tmp_path: Path) -> None:
    for content, value, expected in ((hostile_graphs.allocating(), 3, 6), (hostile_graphs.looping(), 3, 24)):
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        session = GraphSession(path, RuntimeOptions(device="cpu"))
        assert session.run({"x": np.array([[value]], np.float32)}, ["y"])[0].tolist() == [[expected]]
