"""The batcher in any order of events: whoever leaves, fails or is late, everybody else hears their own answer, once.

A known kind of mistake in batchers: a caller that cancels leaves the others of its batch waiting for ever, or an answer
meant for all of them reaches one.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelyard.core.errors import DeadlineExceeded, InvalidFields, ResourceExhausted
from modelyard.inference.execution.batches import Computed
from modelyard.inference.execution.batching import Batcher
from modelyard.inference.execution.plan import ExecutionPlan
from modelyard.inference.execution.sessions import GraphSession, RuntimeOptions
from support import graphs
from support.batchers import GatedSession, ask, numbers
from support.waiting import eventually

VALUES = [float(10 * index + 10) for index in range(50)]
BAD = 99
T = TypeVar("T")

rows_of_a_request = st.lists(st.one_of(st.integers(0, 49), st.integers(0, 49), st.just(BAD)), min_size=1, max_size=3)
priorities = st.sampled_from([0, 0, 0, 1, 70])
plans = st.builds(
    ExecutionPlan,
    max_batch_size=st.just(8),
    batch_rows=st.sampled_from([1, 4, 8]),
    split_rows=st.sampled_from([1, 4]),
    runners=st.sampled_from([1, 2]),
    queue_size=st.sampled_from([2, 20]),
)


class ShiftedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock the test can move on."""

    shift_s = 0.0

    def time(self) -> float:
        """Seconds, as ever, and what was added."""
        return super().time() + self.shift_s


@dataclass
class Asked:
    """A request and what may become of it."""

    values: list[int]
    task: asyncio.Task[Computed]
    expires: float | None
    cancelled: bool = False
    full: bool = False
    """Whether the queue was full when it came."""

    def check(self, now: float) -> None:
        """Whether its outcome is one that it can have."""
        assert self.task.done(), "it was left waiting"
        if self.task.cancelled():
            assert self.cancelled
            return
        error = self.task.exception()
        if error is None:
            assert BAD not in self.values
            assert numbers(self.task.result()) == [VALUES[value] for value in self.values]
        elif isinstance(error, InvalidFields):
            assert BAD in self.values
        elif isinstance(error, DeadlineExceeded):
            assert self.expires is not None
            assert self.expires <= now + 0.01
        else:
            assert isinstance(error, ResourceExhausted)
            assert self.full


class AnyOrder(RuleBasedStateMachine):
    """Requests, cancels, the clock and the runs of the graph, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner(loop_factory=ShiftedLoop)
        gc.freeze()  # whatever other tests have left: `teardown` collects only what comes from now on
        self.loop: ShiftedLoop = self.runner.get_loop()  # type: ignore[assignment]  # the factory's
        self.session = GatedSession(Path(self.folder.name, "model.onnx"), graphs.lookup(VALUES))
        self.asked: list[Asked] = []
        self.faults: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.faults.append(context))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, in the machine's event loop."""
        return self.runner.run(work)

    @initialize(plan=plans)
    def begin(self, plan: ExecutionPlan) -> None:
        """A batcher with this plan."""
        self.plan = plan

        async def create() -> Batcher:
            return Batcher(self.session, plan, name="any order")

        self.batcher = self.run(create())

    @rule(values=rows_of_a_request, priority=priorities, seconds=st.sampled_from([None, None, None, 1.0, 5.0]))
    def ask(self, values: list[int], priority: int, seconds: float | None) -> None:
        """Somebody asks."""

        async def start() -> Asked:
            full = self.batcher.waiting >= self.plan.queue_size
            expires = None if seconds is None else self.loop.time() + seconds
            task = ask(self.batcher, self.session, *values, expires=expires, priority=priority)
            return Asked(values, task, expires, full=full)

        self.asked.append(self.run(start()))
        self.turn()

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 1000))
    def cancel(self, which: int) -> None:
        """Somebody leaves, if they are still there."""
        asked = self.asked[-1 - which % len(self.asked)]

        async def leave() -> bool:
            return asked.task.cancel()

        asked.cancelled |= self.run(leave())
        self.turn()

    @rule()
    def turn(self) -> None:
        """The event loop does what it can do now."""

        async def turns() -> None:
            for _ in range(5):
                await asyncio.sleep(0)

        self.run(turns())

    @rule(cancel=st.booleans(), which=st.integers(0, 1000))
    def let_a_run_end(self, *, cancel: bool, which: int) -> None:
        """A run that has begun ends; somebody may leave before the event loop hears of it."""
        ended = self.session.ended

        async def end() -> None:
            if len(self.session.begun) > ended:
                self.session.permits.release()
                while self.session.ended == ended:  # without a turn of the event loop: it must not see the end yet
                    pass
            if cancel and self.asked:
                asked = self.asked[-1 - which % len(self.asked)]
                asked.cancelled |= asked.task.cancel()

        self.run(end())
        self.turn()

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0]))
    def pass_time(self, seconds: float) -> None:
        """The clock moves on; who has no time left hears of it without any run coming to its end."""
        self.loop.shift_s += seconds
        late = [asked for asked in self.asked if asked.expires is not None and asked.expires <= self.loop.time()]

        async def told() -> None:
            async def all_done() -> bool:
                return all(asked.task.done() for asked in late)

            await eventually(all_done)

        self.run(told())

    @invariant()
    def the_queue_is_bounded(self) -> None:
        """And nothing went wrong behind anybody's back."""
        assert not self.faults
        if hasattr(self, "batcher"):
            assert self.batcher.waiting <= self.plan.queue_size + self.plan.runners

    def teardown(self) -> None:
        """Everybody gets their answer."""

        async def finish() -> None:
            self.session.permits.release(10_000)
            await asyncio.wait_for(
                asyncio.gather(*(asked.task for asked in self.asked), return_exceptions=True), timeout=30
            )
            assert self.batcher.waiting == 0
            await self.batcher.close()

        if hasattr(self, "batcher"):
            self.run(finish())
        for asked in self.asked:
            note(f"{asked}")
            asked.check(self.loop.time())
        self.asked.clear()
        gc.collect()  # what nobody looked at would be reported now
        self.runner.close()
        self.folder.cleanup()
        assert not self.faults


TestAnyOrder = pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning")(AnyOrder.TestCase)
TestAnyOrder.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@dataclass(frozen=True)
class Caller:
    """Somebody who asks and may leave."""

    values: list[int]
    priority: int
    turns: int | None
    """Of the event loop, after which it leaves; None if it stays."""
    seconds: float | None
    """What it waits at most."""


callers = st.builds(
    Caller,
    rows_of_a_request,
    priorities,
    st.one_of(st.none(), st.none(), st.integers(0, 12)),
    st.sampled_from([None, None, None, 0.0, 0.001, 30.0]),
)


@pytest.fixture(scope="module")
def lookup(tmp_path_factory: pytest.TempPathFactory) -> GraphSession:
    """A session that computes at once."""
    path = tmp_path_factory.mktemp("lookup") / "model.onnx"
    path.write_bytes(graphs.lookup(VALUES))
    return GraphSession(path, RuntimeOptions(device="cpu"))


@settings(max_examples=60, deadline=None)
@given(crowd=st.lists(callers, min_size=1, max_size=40), plan=plans, inline=st.sampled_from([0, 2, 8]))
def test_a_crowd_in_a_hurry_hears_its_own_answers(
    lookup: GraphSession, crowd: list[Caller], plan: ExecutionPlan, inline: int
) -> None:
    async def one(batcher: Batcher, caller: Caller) -> None:
        loop = asyncio.get_running_loop()
        full = batcher.waiting >= plan.queue_size
        expires = None if caller.seconds is None else loop.time() + caller.seconds
        task = ask(batcher, lookup, *caller.values, expires=expires, priority=caller.priority)
        asked = Asked(caller.values, task, expires, full=full or len(crowd) > plan.queue_size)
        for _ in range(caller.turns or 0):
            await asyncio.sleep(0)
        if caller.turns is not None:
            asked.cancelled = task.cancel()
        await asyncio.wait([task])
        asked.check(loop.time())

    async def everybody() -> None:
        batcher = Batcher(lookup, replace(plan, inline_rows=inline), name="crowd")
        await asyncio.wait_for(asyncio.gather(*(one(batcher, caller) for caller in crowd)), timeout=30)
        assert batcher.waiting == 0
        await batcher.close()

    asyncio.run(everybody())
