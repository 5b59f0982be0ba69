"""A broker in memory that can be away: for the tests of what the gateway does about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from modelyard.gateway.outbox import BrokerAway


@dataclass
class MemoryBell:
    """See `modelyard.gateway.outbox.Bell`."""

    rung: list[str] = field(default_factory=list)
    """Every doorbell that was taken."""
    queue: list[str] = field(default_factory=list)
    """Those that no worker has taken yet."""
    accepts: int = 1_000_000
    """How many more the broker takes before it is away."""

    async def ring(self, job_names: Sequence[str]) -> int:
        taken = job_names[: self.accepts]
        self.accepts -= len(taken)
        self.rung += taken
        self.queue += taken
        return len(taken)

    async def waiting(self) -> int:
        if not self.accepts:
            raise BrokerAway("connection refused")
        return len(self.queue)
