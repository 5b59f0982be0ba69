"""A loaded version: what it is, what it takes, how it computes, what was counted, and who is using it."""

from __future__ import annotations

import asyncio

from modelyard.inference.execution.batching import Batcher
from modelyard.inference.execution.plan import ExecutionPlan
from modelyard.inference.execution.sessions import GraphSession
from modelyard.inference.execution.signature import Signature
from modelyard.inference.observation.measurements import VersionMeasurements
from modelyard.inference.observation.statistics import VersionStatistics
from modelyard.inference.protocol.plain import PlainRequests

from .desired import WantedVersion
from .memory import UNCOUNTED, Reservation


class LoadedVersion:
    """Serves predictions from its creation until `retire` returns. Used from the event loop it is created in only."""

    def __init__(
        self, wanted: WantedVersion, session: GraphSession, plan: ExecutionPlan, room: Reservation = UNCOUNTED
    ) -> None:
        """`room`: the memory that is set aside for it."""
        self.wanted = wanted
        self.room = room
        self.number_text = str(wanted.number)
        self.signature: Signature = session.signature
        self.all_outputs = session.all_outputs
        self.max_batch_size = plan.max_batch_size if session.signature.batched else 0
        """The most rows of one request; 0 if the graph has no batch dimension."""
        self.batcher = Batcher(session, plan, name=str(wanted))
        self.plain = PlainRequests(wanted.model, self.number_text, self.signature, self.max_batch_size)
        self.statistics = VersionStatistics()
        self.measurements = VersionMeasurements()
        self._users = 0
        self._unused: asyncio.Event | None = None

    @property
    def execution(self) -> ExecutionPlan:
        """How it computes, and the figures that this was decided by."""
        return self.batcher.plan

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self.batcher.waiting

    def acquire(self) -> None:
        """Keeps the version from being freed while a request needs it; `release` must follow."""
        self._users += 1

    def release(self) -> None:
        """Ends what `acquire` began."""
        self._users -= 1
        if self._unused is not None and not self._users:
            self._unused.set()

    def abort(self) -> None:
        """Gives up every request that it still has, and stops what it computes: its callers hear Unavailable."""
        self.batcher.abort()

    async def retire(self) -> None:
        """Returns when the last request has been answered and the threads have ended. Take it off the table first."""
        self._unused = asyncio.Event()
        if self._users:
            await self._unused.wait()
        await self.batcher.close()
