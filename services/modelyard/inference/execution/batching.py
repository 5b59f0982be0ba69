"""The batcher of one version: a bounded queue in front of its runners.

A request that finds a runner idle leaves in the same turn of the event loop. While all runners are busy, requests
wait; the next runner that is free takes as many of them together as the plan allows and their shapes permit. Batches
that take less time than handing them to a thread are computed in the event loop itself.

Everything but the computing happens in the event loop, so a request is in exactly one place: the queue, one batch, or
answered. A request whose caller has gone is done (its future says so) and is passed over wherever it is met; a run for
which nobody waits any more is stopped.
"""

from __future__ import annotations

import asyncio
import math
from contextvars import Context
from dataclasses import replace
from functools import partial

from modelyard.core.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from modelyard.core.logs import get_logger

from .alarm import DeadlineAlarm
from .batches import Batch, Computed, QueuedRequest, level_of
from .computing import compute
from .feeds import Feeds
from .pace import Pace
from .plan import ExecutionPlan
from .sessions import GraphSession
from .threads import RunnerThreads
from .waiting import WaitingRequests

ABORT_PATIENCE_S = 2.0
"""What an aborted version waits for its threads: one node of a graph cannot be interrupted."""

ALARM_EARLY_S = 0.001
"""Event loops round timers to milliseconds; an alarm may ring that much too early."""

log = get_logger()


class Batcher:
    """Computes requests with one session. Create and use it in the event loop."""

    def __init__(self, session: GraphSession, plan: ExecutionPlan, *, name: str) -> None:
        self.plan = plan
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._compute = partial(compute, session)
        self._waiting = WaitingRequests()
        self._running: set[Batch] = set()
        self._threads = RunnerThreads(self._compute, self._finish, count=plan.runners, name=name)
        self._alarm = DeadlineAlarm(self._expire)
        self._pace = Pace(plan.runners)
        self._linger: asyncio.TimerHandle | None = None
        self._woken = False
        self._aborted = False
        self._context = Context()
        """Nobody's: the queue is served for all, and must not be taken for a part of the call that woke it."""

    async def compute(self, feeds: Feeds, expires: float | None = None, priority: int = 0) -> Computed:
        """Computes a request. `expires`: the event loop's time after which its caller waits no more. `priority`: see
        `level_of`.

        Cancelling it takes the request out of the queue, or lets its batch go on without it. Raises ResourceExhausted
        if the queue is full, DeadlineExceeded as soon as the time is over, Unavailable if the version is aborted, and
        what the session raises for this request.
        """
        result: asyncio.Future[Computed] = self._loop.create_future()
        request = QueuedRequest(feeds, result, expires, level_of(priority))
        self.admit(request)
        try:
            return await result
        except asyncio.CancelledError:
            self.leave(request)
            raise

    def admit(self, request: QueuedRequest, *, wake: bool = True) -> None:
        """Puts a request into the queue; its outcome goes to its `result`, not before this has returned.

        Without `wake` the caller has the queue served when all requests that it has are in it.

        Raises ResourceExhausted if the queue is full, Unavailable if the version is aborted.
        """
        if self._aborted:
            raise Unavailable("the pod is stopping", retry_after=1.0)
        if self.room < request.calls:
            raise ResourceExhausted(
                f"the queue of this version is full: {self.plan.queue_size} requests may wait",
                retry_after=self._pace.seconds_for(self._waiting.calls),
            )
        self._waiting.add(request)
        if request.expires is not None:
            self._alarm.set(request.expires)
        if wake:
            self._wake()

    def leave(self, request: QueuedRequest) -> None:
        """Nobody waits for this request any more: takes it out of the queue, or stops a run that is for nobody.

        Its `result` must say that it is done.
        """
        if request.batch is None:
            self._waiting.discard(request)
        else:
            request.batch.stop_if_unwanted()

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return self._waiting.calls

    @property
    def room(self) -> int:
        """How many more calls would be taken now."""
        return self.plan.queue_size + self._threads.idle - self._waiting.calls

    async def close(self) -> None:
        """Ends the threads. Nothing may be waiting or running any more, unless it was aborted."""
        self._alarm.cancel()
        if self._linger is not None:
            self._linger.cancel()
        ended = await self._threads.end(ABORT_PATIENCE_S if self._aborted else None)
        if not ended:
            log.warning("a run cannot be stopped; its thread is left behind", version=self._name)

    def abort(self) -> None:
        """Gives up everything that waits or runs; its callers hear Unavailable."""
        self._aborted = True
        for request in self._unanswered():
            self._fail(request, Unavailable("the pod is stopping", retry_after=1.0))

    def _wake(self) -> None:
        """Lets the queue be served behind what is ready in the event loop now: more requests, as a rule."""
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._woke, context=self._context)

    def _woke(self) -> None:
        self._woken = False
        self.serve()

    def serve(self) -> None:
        """Starts what can be started."""
        while len(self._waiting):
            if self._waiting.first().feeds.rows <= self.plan.inline_rows:
                self._compute_here()
                return
            if not self._threads.idle or self._lingers():
                return
            self._compute_in_thread()

    def _compute_here(self) -> None:
        """Computes one batch. What else the event loop has to do comes before the next."""
        batch = self._take(min(self.plan.batch_rows, self.plan.inline_rows))
        if batch is not None:
            self._compute(batch)
            self._finish(batch)
        if len(self._waiting):
            self._wake()

    def _compute_in_thread(self) -> None:
        """Starts one batch. What is there is shared among the runners, those that are busy too: two batches of a
        size are done sooner than a large one and a small one."""
        there = self._waiting.rows + sum([batch.rows for batch in self._running])
        share = math.ceil(there / self.plan.runners)
        batch = self._take(min(self.plan.batch_rows, max(self.plan.split_rows, share)))
        if batch is not None:
            self._threads.start(batch)

    def _lingers(self) -> bool:
        """Whether a free runner waits a moment, see `Pace`; the queue is then served again after it, or sooner."""
        if not self.plan.batching:
            return False
        wait_s = self._pace.linger_s(self._waiting.rows, self.plan.batch_rows)
        if wait_s and self._linger is None:
            self._linger = self._loop.call_later(wait_s, self._end_linger)
        return wait_s > 0

    def _end_linger(self) -> None:
        self._linger = None
        self._wake()

    def _take(self, limit: int) -> Batch | None:
        """The next batch, without those whose time is over; None if nobody is left."""
        now = self._loop.time()
        waiting_rows = self._waiting.rows
        requests: list[QueuedRequest] = []
        for request in self._waiting.take(limit):
            if request.expires is not None and now >= request.expires:
                self._fail(request, _too_late())
            elif not request.result.done():
                requests.append(request)
        if not requests:
            return None
        batch = Batch(requests)
        for request in requests:
            request.batch = batch
        self._running.add(batch)
        self._pace.begun(batch.rows, waiting_rows)
        return batch

    def _finish(self, batch: Batch) -> None:
        """Answers a computed batch."""
        self._running.discard(batch)
        for request, outcome in zip(batch.requests, batch.outcomes, strict=True):
            request.batch = None  # the two would keep each other, and their tensors, in memory
            if request.result.done():
                continue
            if isinstance(outcome, Exception):
                request.result.set_exception(outcome)
            else:
                request.result.set_result(outcome)
        self._pace.ended(batch.calls, batch.rows, batch.took_ns / 1e9, self._waiting.rows)
        if batch.disproved:
            self.stop_batching()
        if len(self._waiting):
            self._wake()

    def stop_batching(self) -> None:
        """The graph turned out not to give one row of results for each row of inputs."""
        if self.plan.batching:
            reason = "the graph gave another number of rows than it was given: requests are computed one by one"
            self.plan = replace(self.plan, batch_rows=1, reason=reason)
            log.warning(reason, version=self._name)

    def _fail(self, request: QueuedRequest, error: Exception) -> None:
        if not request.result.done():
            request.result.set_exception(error)
        self.leave(request)

    def _expire(self) -> None:
        """Tells everybody whose time is over, wherever the request is, and sets the alarm for the next."""
        now = self._loop.time() + ALARM_EARLY_S
        for request in self._unanswered():
            if request.expires is None or request.result.done():
                continue
            if request.expires <= now:
                self._fail(request, _too_late())
            else:
                self._alarm.set(request.expires)

    def _unanswered(self) -> list[QueuedRequest]:
        running = [request for batch in self._running for request in batch.requests]
        return [*self._waiting, *running]


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the time allowed was over before the prediction was computed")
