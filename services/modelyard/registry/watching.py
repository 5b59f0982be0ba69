"""Tells inference pods what to serve: at once what this process changed, within a poll what other replicas did.

A watcher holds nothing but the revision that it was told last. What it is told next is computed from the newest state,
so one that reads slowly skips what is outdated by then; it costs no memory and holds nobody up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from modelyard.core.database import Database
from modelyard.core.errors import Unavailable
from modelyard.core.logs import get_logger

from .served import Served, ServedModel, read_served

log = get_logger()


@dataclass(frozen=True, slots=True)
class Update:
    """One message to a watcher."""

    revision: int
    snapshot: bool = False
    """Whether `models` is everything."""
    models: Sequence[ServedModel] = ()


class Watch:
    """The newest state of what should be served, and those who wait for the next one."""

    def __init__(self, database: Database, *, interval_s: float, heartbeat_s: float, stopping: asyncio.Event) -> None:
        """`stopping` ends all watching, once it is set."""
        self._database = database
        self._interval_s = interval_s
        self._heartbeat_s = heartbeat_s
        self._stopping = stopping
        self._poked = asyncio.Event()
        self._changed = asyncio.Event()
        self._served = Served(0)
        self._refreshing = asyncio.Lock()
        self._failing = False
        self.watchers = 0
        """Open streams of updates."""

    @property
    def revision(self) -> int:
        """Of the state that watchers are told of."""
        return self._served.revision

    async def load(self) -> None:
        """Reads the state for the first time."""
        self._served = await read_served(self._database)

    async def run(self) -> None:
        """Keeps the state new until it is cancelled. While the database is away watchers keep what they have."""
        stopping = asyncio.create_task(self._wake_when_stopping())
        try:
            while True:
                await self._try_to_refresh()
                await self._rest()
        finally:
            stopping.cancel()

    def poke(self) -> None:
        """This process has changed what should be served."""
        self._poked.set()

    async def updates(self, after_revision: int) -> AsyncIterator[Update]:
        """What changed after `after_revision`, then each change as it happens, and a heartbeat when nothing does.

        Everything, as a snapshot, if the revision is 0 or not one of this registry's. Raises Unavailable when the
        process stops.
        """
        # A pod that comes from another replica may know more than this one has polled so far, and must not be told what
        # was before.
        await self._refresh()
        self.watchers += 1
        try:
            served = self._served
            yield _changes(served, after_revision)
            while True:
                told = served.revision
                await self._wait_beyond(told)
                served = self._served
                yield Update(served.revision, models=served.since(told)) if told == 0 else _changes(served, told)
        finally:
            self.watchers -= 1

    async def _wait_beyond(self, revision: int) -> None:
        """Returns when the revision is another one, or when it is time for a heartbeat."""
        try:
            async with asyncio.timeout(self._heartbeat_s):
                while self._served.revision == revision and not self._stopping.is_set():
                    await self._changed.wait()
        except TimeoutError:
            pass
        if self._stopping.is_set():
            raise Unavailable("the registry is stopping; watch again from the last revision", retry_after=0.1)

    async def _try_to_refresh(self) -> None:
        try:
            await self._refresh()
        except Exception:
            if not self._failing:  # once, not at every poll until the database is back
                log.exception("reading what should be served fails")
            self._failing = True
        else:
            if self._failing:
                log.info("reading what should be served succeeds again")
            self._failing = False

    async def _refresh(self) -> None:
        async with self._refreshing:
            self._poked.clear()
            served = await read_served(self._database, self._served)
            if served is not self._served:
                self._served = served
                self._wake()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._interval_s):
                await self._poked.wait()
        except TimeoutError:
            return

    async def _wake_when_stopping(self) -> None:
        await self._stopping.wait()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _changes(served: Served, after_revision: int) -> Update:
    """What changed since; everything if that revision is none, or from a time that this database does not know."""
    if 0 < after_revision <= served.revision:
        return Update(served.revision, models=served.since(after_revision))
    return Update(served.revision, snapshot=True, models=served.everything())
