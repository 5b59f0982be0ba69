"""A loaded version: what it is, what it takes, how it computes, what was counted, and who is using it."""

from __future__ import annotations

import asyncio

from .desired import WantedVersion
from .running import Runner
from .sessions import GraphSession
from .signature import Signature
from .statistics import VersionStatistics


class LoadedVersion:
    """Serves predictions from its creation until `retire` returns. Used from the event loop only."""

    def __init__(self, wanted: WantedVersion, session: GraphSession, runner: Runner, *, max_batch_size: int) -> None:
        self.wanted = wanted
        self.number_text = str(wanted.number)
        self.signature: Signature = session.signature
        self.all_outputs = session.all_outputs
        self.max_batch_size = max_batch_size if session.signature.batched else 0
        """The most rows of one request; 0 if the graph has no batch dimension."""
        self.runner = runner
        self.statistics = VersionStatistics()
        self._users = 0
        self._unused: asyncio.Event | None = None

    def acquire(self) -> None:
        """Keeps the version from being freed while a request needs it; `release` must follow."""
        self._users += 1

    def release(self) -> None:
        """Ends what `acquire` began."""
        self._users -= 1
        if self._unused is not None and not self._users:
            self._unused.set()

    async def retire(self) -> None:
        """Returns when the last request has been answered and the threads have ended. Take it off the table first."""
        self._unused = asyncio.Event()
        if self._users:
            await self._unused.wait()
        await self.runner.close()
