"""Where and for how long a job may wait, and the queues that there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.core.doorbell import DEFAULT_QUEUE

MAX_PRIORITY = 100
MAX_RETRIES = 10
MIN_TIME_S = 1.0
MAX_TIME_S = 366 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """What a user asks for beside the training itself. Times are microseconds; None: no limit."""

    queue: str = DEFAULT_QUEUE
    priority: int = 0
    max_queue_time: int | None = None
    max_run_time: int | None = None
    max_retries: int = 0


@dataclass(frozen=True, slots=True)
class Queues:
    """The queues of the cluster."""

    names: tuple[str, ...] = (DEFAULT_QUEUE,)
    """The first one takes jobs that name none."""
    max_running: Mapping[str, int] = field(default_factory=dict)
    """The most jobs that a queue may run at once; no entry: no limit."""

    @property
    def default(self) -> str:
        """The queue of jobs that name none."""
        return self.names[0]

    def room(self, queue: str, running: int, wanted: int = 1) -> int:
        """How many of the wanted jobs may start in a queue that runs so many."""
        limit = self.max_running.get(queue)
        return wanted if limit is None else max(0, min(wanted, limit - running))
