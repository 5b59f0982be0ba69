"""Which requests a shadow is given, and that callers come first. The versions' graphs are played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from modelyard.core.errors import ResourceExhausted
from modelyard.inference.execution.batches import PRIORITY_LEVELS, Computed, OutputContents
from modelyard.inference.execution.feeds import Feeds
from modelyard.inference.execution.signature import Signature, TensorInfo
from modelyard.inference.observation.shadow_metrics import ShadowMetrics
from modelyard.inference.serving import shadowing
from modelyard.inference.serving.desired import WantedVersion
from modelyard.inference.serving.shadowing import ShadowPair, Shadows
from modelyard.inference.serving.table import ServingTable, ShadowRoute
from modelyard.inference.serving.versions import LoadedVersion
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES
from modelyard.oip.tensors import add_input
from support.waiting import eventually

PAIR = ShadowPair("m", "live", 1, 2)


@dataclass
class PlayedVersion:
    """Answers `x` times a factor when the test lets it."""

    number: int
    factor: float = 1.0
    waiting: int = 0
    users: int = 0
    error: Exception | None = None
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    priorities: list[int] = field(default_factory=list)
    running: int = 0
    most_running: int = 0

    def __post_init__(self) -> None:
        self.wanted = WantedVersion("m", self.number, "d", 1, (), (), 20, 10, "", "", "", "")
        self.number_text = str(self.number)
        floats = DATATYPES["FP32"]
        self.signature = Signature.of([TensorInfo("x", floats, (-1, 2))], [TensorInfo("y", floats, (-1, 2))])
        self.all_outputs = ["y"]
        self.max_batch_size = 8
        self.batcher = self
        self.may_answer.set()

    async def compute(self, feeds: Feeds, expires: float | None = None, priority: int = 0) -> Computed:
        """As the batcher does."""
        self.priorities.append(priority)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await self.may_answer.wait()
        self.running -= 1
        if self.error is not None:
            raise self.error
        array = feeds.array(0, DATATYPES["FP32"]) * np.float32(self.factor)
        return Computed([OutputContents(array.shape, array.tobytes())], 0, cast("Any", None))

    def acquire(self) -> None:
        """As LoadedVersion does."""
        self.users += 1

    def release(self) -> None:
        """As LoadedVersion does."""
        self.users -= 1


@dataclass
class Stage:
    """An alias whose own version is 1, with version 2 in its shadow."""

    table: ServingTable
    shadows: Shadows
    own: PlayedVersion
    shadow: PlayedVersion

    def answer(self, count: int = 1, name: str = "") -> None:
        """So many callers have been answered."""
        request = pb.ModelInferRequest(model_name="m", model_version=name)
        add_input(request, "x", np.array([[1, 2]], np.float32))
        response = pb.ModelInferResponse(model_name="m", model_version="1")
        response.outputs.add(name="y", datatype="FP32", shape=[1, 2])
        response.raw_output_contents.append(np.array([[1, 2]], np.float32).tobytes())
        for _ in range(count):
            self.shadows.offer(request, response, cast("LoadedVersion", self.own))

    def route(self, percent: float = 100) -> None:
        """Sets the shadow."""
        route = ShadowRoute("live", cast("LoadedVersion", self.shadow), percent)
        self.table.shadows = {("m", ""): route, ("m", "live"): route}

    async def until(self, probe: Callable[[shadowing.ShadowCounts], bool]) -> shadowing.ShadowCounts:
        """Returns the counts when they are so."""

        async def so() -> shadowing.ShadowCounts | None:
            counts = self.shadows.counts.get(PAIR)
            return counts if counts is not None and probe(counts) else None

        return await eventually(so)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    table = ServingTable()
    stage = Stage(table, Shadows(table), PlayedVersion(1), PlayedVersion(2, factor=2))
    stage.route()
    yield stage
    await stage.shadows.close()


async def test_answers_are_compared_one_at_a_time_at_the_lowest_priority(stage: Stage) -> None:
    stage.answer(20)
    stage.answer(5, "live")
    counts = await stage.until(lambda counts: counts.compared == 25)
    assert (counts.differing, counts.max_absolute_difference, counts.dropped) == (25, 2.0, 0)
    assert (stage.shadow.most_running, set(stage.shadow.priorities)) == (1, {PRIORITY_LEVELS})
    assert stage.shadow.users == 0


@pytest.mark.parametrize("busy", ["own", "shadow"])
async def test_nothing_is_begun_while_callers_wait(stage: Stage, busy: str) -> None:
    version: PlayedVersion = getattr(stage, busy)
    version.waiting = 1
    stage.answer(3)
    await asyncio.sleep(0)
    assert stage.shadow.priorities == []
    version.waiting = 0
    stage.answer()  # the next answer finds nobody waiting
    await stage.until(lambda counts: counts.compared == 4)


async def test_what_does_not_fit_is_dropped_and_counted(stage: Stage) -> None:
    stage.own.waiting = 1
    stage.answer(shadowing.BUFFER_REQUESTS + 10)
    assert stage.shadows.counts[PAIR].dropped == 10
    stage.own.waiting = 0
    stage.answer()
    counts = await stage.until(lambda counts: counts.compared == shadowing.BUFFER_REQUESTS)
    assert counts.dropped == 11


async def test_large_requests_are_bounded_by_their_bytes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadowing, "BUFFER_BYTES", 100)
    stage.own.waiting = 1
    stage.answer(5)
    assert 0 < stage.shadows.counts[PAIR].dropped < 5


async def test_a_failure_is_counted_with_its_reason_and_the_next_goes_on(stage: Stage) -> None:
    stage.shadow.error = ResourceExhausted("full")
    stage.answer()
    counts = await stage.until(lambda counts: counts.failed == 1)
    assert (counts.last_error, stage.shadow.users) == ("full", 0)
    stage.shadow.error = RuntimeError("secret")
    stage.answer()
    counts = await stage.until(lambda counts: counts.failed == 2)
    assert counts.last_error == "an error inside the pod"
    stage.shadow.error = None
    stage.answer()
    await stage.until(lambda counts: counts.compared == 1)


async def test_a_share_is_taken_by_chance_and_numbers_have_no_shadow(stage: Stage) -> None:
    chances = iter([0.09, 0.11, 0.5, 0.0])
    stage.shadows = Shadows(stage.table, chance=lambda: next(chances))
    stage.route(percent=10)
    stage.answer(4)
    stage.answer(3, "1")
    await stage.until(lambda counts: counts.compared == 2)
    assert len(stage.shadow.priorities) == 2
    await stage.shadows.close()


async def test_what_waits_is_let_go_when_the_shadow_changes(stage: Stage) -> None:
    stage.own.waiting = 1
    stage.answer(3)
    old, stage.shadow = stage.shadow, PlayedVersion(3)
    stage.route()
    stage.own.waiting = 0
    stage.answer()

    async def all_taken() -> bool:
        return ShadowPair("m", "live", 1, 3) in stage.shadows.counts and stage.shadow.priorities != []

    await eventually(all_taken)
    assert (old.priorities, stage.shadows.counts[PAIR].dropped) == ([], 3)


async def test_the_counts_are_told_to_prometheus_and_the_registry(stage: Stage) -> None:
    stage.answer(2)
    await stage.until(lambda counts: counts.compared == 2)
    families = {family.name: family.samples for family in await ShadowMetrics(stage.shadows).metrics()}
    (sample,) = families["modelyard_shadow_compared"]
    labels = {"model": "m", "alias": "live", "version": "1", "shadow_version": "2"}
    assert (sample.labels, sample.value) == (labels, 2)
    assert families["modelyard_shadow_max_absolute_difference"][0].value == 2
    (report,) = stage.shadows.reports()
    assert (report.name, report.version, report.shadow_version) == ("models/m/aliases/live", 1, 2)
    assert (report.compared, report.differing, report.rows) == (2, 2, 2)
