"""A job's history from any point on, then what happens next, without a gap or a repeat."""

from __future__ import annotations

from collections.abc import AsyncIterator

from modelyard.core.errors import InvalidFields

from . import events
from .events import Event, StateChange
from .jobs import TERMINAL
from .ledger import Ledger
from .notices import Notices

PAGE = 500
"""Events held in memory at a time for one watcher, however long the history is."""


class Watch:
    """Follows jobs."""

    def __init__(self, ledger: Ledger, notices: Notices) -> None:
        self._ledger = ledger
        self._notices = notices

    async def events(
        self, job_id: str, after: int, *, tenant: str | None, history_only: bool = False
    ) -> AsyncIterator[Event]:
        """The events after sequence number `after`; ends behind the one that ends the job.

        `history_only`: ends behind the newest one recorded when the call came, and waits for nothing.

        Raises NotFound, InvalidFields if the history does not reach to `after`, Unavailable when the process stops.
        """
        with self._notices.follow(job_id) as topic:
            job = await self._ledger.get(job_id, tenant=tenant)
            if not 0 <= after <= job.last_sequence:
                raise InvalidFields.one("after_sequence", f"expected 0 to {job.last_sequence}, got {after}")
            topic.advance(job.last_sequence)
            known = job.last_sequence if history_only or job.is_terminal else None
            ended = after == known
            while not ended:
                for event in await self._page(job_id, after, known):
                    yield event
                    after = event.sequence
                    ended = after == known or _is_last(event)
                if not ended:
                    await topic.wait_beyond(after)

    async def _page(self, job_id: str, after: int, last: int | None) -> list[Event]:
        limit = PAGE if last is None else min(PAGE, last - after)
        # No connection is held while the caller takes its time with the events.
        async with self._ledger.database.read() as connection:
            return await events.read_page(connection, job_id, after, limit)


def _is_last(event: Event) -> bool:
    return isinstance(event.payload, StateChange) and event.payload.state in TERMINAL
