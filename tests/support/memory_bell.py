"""A broker in memory that can be away: for the tests of what the gateway does about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from modelyard.gateway.doorbells import Doorbell
from modelyard.gateway.jobs import job_name
from modelyard.gateway.outbox import BrokerAway


@dataclass
class MemoryBell:
    """See `modelyard.gateway.outbox.Bell`."""

    rung: list[str] = field(default_factory=list)
    """The job of every doorbell that was taken."""
    queues: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Those that no worker has taken yet, by queue."""
    accepts: int = 1_000_000
    """How many more the broker takes before it is away."""

    @property
    def queue(self) -> list[str]:
        """Those of the queue `cpu`."""
        return self.queues["cpu"]

    async def ring(self, doorbells: Sequence[Doorbell]) -> int:
        taken = doorbells[: self.accepts]
        self.accepts -= len(taken)
        for doorbell in taken:
            self.rung.append(job_name(doorbell.job_id))
            self.queues[doorbell.queue].append(job_name(doorbell.job_id))
        return len(taken)

    async def waiting(self, queue: str) -> int:
        if not self.accepts:
            raise BrokerAway("connection refused")
        return len(self.queues[queue])
