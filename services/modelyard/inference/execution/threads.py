"""The threads of one version: each computes one batch at a time, and tells the event loop when it is done."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable

from .batches import Batch


class RunnerThreads:
    """Up to `count` threads, started when they are first needed. Used from the event loop it is created in."""

    def __init__(
        self, compute: Callable[[Batch], None], done: Callable[[Batch], None], *, count: int, name: str
    ) -> None:
        """`compute` runs in a thread and must not raise; `done` then runs in the event loop."""
        self._compute = compute
        self._done = done
        self._count = count
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self.idle = count
        """How many batches can be started now."""

    def start(self, batch: Batch) -> None:
        """Computes a batch; `idle` must be above 0."""
        if self._count - self.idle == len(self._threads):
            thread = threading.Thread(target=self._work, name=f"{self._name} {len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self.idle -= 1
        self._batches.put(batch)

    async def end(self, patience_s: float | None = None) -> bool:
        """Lets every thread end behind what it computes; answers whether all have, within `patience_s` if given."""
        for _ in self._threads:
            self._batches.put(None)
        return await asyncio.to_thread(self._join, patience_s)

    def _join(self, patience_s: float | None) -> bool:
        until = None if patience_s is None else time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        """A thread's life."""
        while (batch := self._batches.get()) is not None:
            self._compute(batch)
            self._loop.call_soon_threadsafe(self._finish, batch)
            del batch  # or it, and the arrays in it, would live until the next one

    def _finish(self, batch: Batch) -> None:
        self.idle += 1
        self._done(batch)
