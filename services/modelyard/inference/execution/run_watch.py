"""Stops runs of graphs that take longer than the pod allows, with or without a caller.

A graph can loop 2^62 times, and a first run at load has no caller whose patience would end. One thread looks at all
runs of the process; it works also while the event loop is busy, which a run may be the reason for.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

_LOOKS_PER_LIMIT = 10
_LONGEST_TICK_S = 0.5


class Stoppable(Protocol):
    """A run that another thread can stop."""

    overdue: bool
    """Set before `stop`: why it was stopped."""

    def stop(self) -> None:
        """Has it end at the next node of the graph."""


class RunWatch:
    """Knows every run that is in progress. `begin` and `end` come from any thread and cost next to nothing."""

    def __init__(self, limit_s: float) -> None:
        """`limit_s`: the longest a run may take."""
        self.limit_s = limit_s
        self._begun: dict[Stoppable, float] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="run watch", daemon=True)
        self._thread.start()

    def begin(self, run: Stoppable) -> None:
        """A run begins; its time counts from now."""
        self._begun[run] = time.monotonic()

    def end(self, run: Stoppable) -> None:
        """It has ended."""
        self._begun.pop(run, None)

    def close(self) -> None:
        """Ends the watch. Runs that go on are no longer watched."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        tick_s = min(_LONGEST_TICK_S, self.limit_s / _LOOKS_PER_LIMIT)
        while not self._closed.wait(tick_s):
            latest = time.monotonic() - self.limit_s
            for run, begun in self._begun.copy().items():  # a copy is made in one step, whatever the threads do
                if begun <= latest:
                    run.overdue = True
                    run.stop()
