"""What happened in an attempt and has not reached the gateway yet, numbered so that nothing counts twice."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from modelyard.v1.worker_service_pb2 import TrainingUpdate

REPORT_UPDATES = 1_000
"""The most updates in a report, as the API says."""

REPORT_BYTES = 1024 * 1024
"""The most bytes of updates in a report; far below every message limit."""

WAITING_UPDATES = 4_000
WAITING_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """What to send in one report."""

    first: int
    """Position of the first update in the attempt's updates, from 1."""
    updates: tuple[TrainingUpdate, ...]


class UpdateBuffer:
    """Updates on their way to the gateway, in order. Thread-safe.

    An update gets its position when it is first sent, and keeps it until the gateway confirms: so a report whose
    answer was lost is sent again unchanged, and the gateway skips what it has. Before that, while the gateway is away,
    the buffer is thinned when it grows too large: every second progress goes and the older half of the log lines,
    with one line in their place that says how many; states and evaluations are kept (there are only a few).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._confirmed = 0
        self._sent: deque[TrainingUpdate] = deque()
        self._waiting: deque[TrainingUpdate] = deque()
        self._waiting_bytes = 0
        self._dropped_lines = 0

    def add(self, update: TrainingUpdate) -> None:
        """Takes what happened."""
        with self._lock:
            self._waiting.append(update)
            self._waiting_bytes += update.ByteSize()
            if len(self._waiting) > WAITING_UPDATES or self._waiting_bytes > WAITING_BYTES:
                self._thin()

    def empty(self) -> bool:
        """Whether the gateway has everything."""
        with self._lock:
            return not (self._sent or self._waiting or self._dropped_lines)

    def batch(self) -> Batch:
        """The next report: what was sent and not confirmed, and as much of the rest as fits."""
        with self._lock:
            size = sum(update.ByteSize() for update in self._sent)
            if self._dropped_lines:
                self._waiting.appendleft(_dropped(self._dropped_lines))
                self._waiting_bytes += self._waiting[0].ByteSize()
                self._dropped_lines = 0
            while self._waiting and len(self._sent) < REPORT_UPDATES:
                next_bytes = self._waiting[0].ByteSize()
                if self._sent and size + next_bytes > REPORT_BYTES:
                    break
                size += next_bytes
                self._waiting_bytes -= next_bytes
                self._sent.append(self._waiting.popleft())
            return Batch(self._confirmed + 1, tuple(self._sent))

    def confirm(self, received: int) -> None:
        """The gateway has the first `received` updates of this attempt."""
        with self._lock:
            # A gateway that knows of fewer than it once confirmed has lost them; numbering goes on where it is.
            for _ in range(min(received - self._confirmed, len(self._sent))):
                self._sent.popleft()
            self._confirmed = received

    def discard(self, batch: Batch) -> None:
        """Forgets a batch that the gateway refused as a whole, so that what comes after it is not held up."""
        with self._lock:
            for _ in batch.updates:
                self._sent.popleft()

    def _thin(self) -> None:
        lines = _count(self._waiting, "log_line")
        self._dropped_lines += lines // 2
        self._waiting = deque(_thinned(self._waiting, lines // 2))
        self._waiting_bytes = sum(update.ByteSize() for update in self._waiting)


def _count(updates: Iterable[TrainingUpdate], kind: Literal["log_line", "progress"]) -> int:
    return sum(1 for update in updates if update.HasField(kind))


def _thinned(updates: Collection[TrainingUpdate], lines_to_drop: int) -> Iterator[TrainingUpdate]:
    # Every second progress stays, so that the loss curve keeps its shape; begun so that the newest one is among them.
    keep_progress = _count(updates, "progress") % 2 == 0
    for update in updates:
        if update.HasField("progress"):
            keep_progress = not keep_progress
            if not keep_progress:
                continue
        elif update.HasField("log_line") and lines_to_drop:
            lines_to_drop -= 1
            continue
        yield update


def _dropped(count: int) -> TrainingUpdate:
    return TrainingUpdate(log_line=f"… {count:,} older log lines dropped while the gateway could not be reached")
