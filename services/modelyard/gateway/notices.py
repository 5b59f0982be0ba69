"""Tells watchers that a job's history has grown: at once in the process that wrote it, by polling in the others.

However many calls watch, the polling is one small query a tick over the jobs that are watched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import select

from modelyard.core.database import Database
from modelyard.core.errors import Unavailable

from .tables import jobs

_JOBS_PER_QUERY = 500


class Topic:
    """The newest sequence number of one job, as far as this process knows."""

    def __init__(self) -> None:
        self.followers = 0
        self.closed = False
        self._sequence = 0
        self._changed = asyncio.Event()

    def advance(self, sequence: int) -> None:
        """Wakes the followers if the history has grown."""
        if sequence > self._sequence:
            self._sequence = sequence
            self._wake()

    def close(self) -> None:
        """Sends the followers away: the process stops."""
        self.closed = True
        self._wake()

    async def wait_beyond(self, sequence: int) -> None:
        """Returns when there is an event after `sequence`; raises Unavailable when the process stops."""
        while self._sequence <= sequence:
            if self.closed:
                raise Unavailable("the gateway is stopping; watch again from the last sequence number", retry_after=1)
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Notices:
    """The topics that somebody follows."""

    def __init__(self) -> None:
        self._topics: dict[str, Topic] = {}
        self._closed = False

    def announce(self, job_id: str, sequence: int) -> None:
        """The job's history reaches to `sequence` now."""
        topic = self._topics.get(job_id)
        if topic is not None:
            topic.advance(sequence)

    @contextmanager
    def follow(self, job_id: str) -> Iterator[Topic]:
        """The job's topic, followed until the end of the block."""
        topic = self._topics.setdefault(job_id, Topic())
        topic.closed = self._closed
        topic.followers += 1
        try:
            yield topic
        finally:
            topic.followers -= 1
            if not topic.followers:
                del self._topics[job_id]

    async def poll(self, database: Database) -> None:
        """Asks the database how far the followed jobs are."""
        followed = list(self._topics)
        for start in range(0, len(followed), _JOBS_PER_QUERY):
            chunk = followed[start : start + _JOBS_PER_QUERY]
            query = select(jobs.c.id, jobs.c.last_sequence).where(jobs.c.id.in_(chunk))
            async with database.read() as connection:
                rows = (await connection.execute(query)).all()
            for row in rows:
                self.announce(row.id, row.last_sequence)

    def close(self) -> None:
        """Ends all waiting, now and later: the process stops."""
        self._closed = True
        for topic in self._topics.values():
            topic.close()
