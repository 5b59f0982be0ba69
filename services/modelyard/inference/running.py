"""The queue and the threads of one version: bounded, and blind to callers that have gone.

A prediction waits in a FIFO until one of the version's threads takes it. One that was cancelled or whose time is over
by then is not computed. The threads hand their results back to the event loop, where everything happens but `_work` and
what it calls.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modelyard.core.errors import DeadlineExceeded, ResourceExhausted
from modelyard.oip.tensors import Array, encode_raw

from .sessions import GraphSession

RETRY_FULL_S = 0.1
"""What a caller is advised to wait when the queue is full. A queue of common length empties in about that time."""


@dataclass(frozen=True, slots=True)
class OutputContents:
    """One computed output, ready for the wire."""

    shape: tuple[int, ...]
    raw: bytes


@dataclass(frozen=True, slots=True)
class Computed:
    """A computed prediction."""

    outputs: list[OutputContents]
    """In the order asked."""
    queue_ns: int
    infer_ns: int
    output_ns: int


@dataclass(slots=True, eq=False)
class _Work:
    """One prediction on its way through."""

    feeds: Mapping[str, Array]
    outputs: Sequence[str]
    expires: float | None
    result: asyncio.Future[Computed]
    queued_ns: int = field(default_factory=time.perf_counter_ns)
    started: bool = False


class Runner:
    """Computes with one session in `threads` threads of its own. Create it in the event loop."""

    def __init__(self, session: GraphSession, *, threads: int, queue_size: int, name: str) -> None:
        self._session = session
        self._limit = threads + queue_size
        self._pending = 0
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name} {number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], expires: float | None = None) -> Computed:
        """Computes these outputs. `expires`: the event loop's time after which nobody waits any more.

        Raises ResourceExhausted if the queue is full, DeadlineExceeded if the time was over before a thread was free,
        and what the session raises.
        """
        if self._pending >= self._limit:
            raise ResourceExhausted(
                f"{self._pending} predictions are running or waiting for this version, the most allowed",
                retry_after=RETRY_FULL_S,
            )
        work = _Work(feeds, outputs, expires, self._loop.create_future())
        timer = self._loop.call_at(expires, self._expire, work) if expires is not None else None
        self._pending += 1
        self._queue.put(work)
        try:
            return await work.result
        finally:
            if timer is not None:
                timer.cancel()

    async def close(self) -> None:
        """Returns when everything accepted has been answered and the threads have ended."""
        for _ in self._threads:
            self._queue.put(None)
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        for thread in self._threads:
            thread.join()
        del self._session  # frees its memory here, in a thread: for a large graph that takes a while

    def _expire(self, work: _Work) -> None:
        if not work.started and not work.result.done():
            work.result.set_exception(_too_late())

    def _work(self) -> None:
        """A thread's life."""
        while (work := self._queue.get()) is not None:
            # The caller may go at any moment; what counts is that nothing is begun for one who has gone.
            outcome = None if work.result.done() else self._compute(work)
            self._loop.call_soon_threadsafe(self._settle, work, outcome)
            del work, outcome  # or they, and the arrays in them, would live until the next request

    def _compute(self, work: _Work) -> Computed | Exception:
        if work.expires is not None and self._loop.time() >= work.expires:
            return _too_late()
        work.started = True
        try:
            start = time.perf_counter_ns()
            arrays = self._session.run(work.feeds, work.outputs)
            computed = time.perf_counter_ns()
            outputs = [
                OutputContents(array.shape, encode_raw(array, self._session.signature.outputs_by_name[name].datatype))
                for name, array in zip(work.outputs, arrays, strict=True)
            ]
            end = time.perf_counter_ns()
        except Exception as error:  # noqa: BLE001 - raised again where the caller waits
            return error
        return Computed(outputs, start - work.queued_ns, computed - start, end - computed)

    def _settle(self, work: _Work, outcome: Computed | Exception | None) -> None:
        self._pending -= 1
        if work.result.done() or outcome is None:
            return
        if isinstance(outcome, Exception):
            work.result.set_exception(outcome)
        else:
            work.result.set_result(outcome)


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the time allowed was over before the prediction could begin")
