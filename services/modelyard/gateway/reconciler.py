"""Rings again for queued jobs that nobody has come for: the broker may have lost or never had their doorbells.

It rings only for as many jobs as the broker and the outbox have fewer doorbells than there are queued jobs. So a long
queue behind busy workers does not fill the broker with repetitions, and a broker that lost everything is refilled.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import ColumnElement, func, insert, select, update

from modelyard.core.database import Database, now_us
from modelyard.core.logs import get_logger

from .jobs import State
from .outbox import Bell, BrokerAway, pending
from .selection import chosen_once
from .tables import doorbells, jobs

_BATCH = 500

log = get_logger()


class Reconciler:
    """Makes up for lost doorbells."""

    def __init__(
        self,
        database: Database,
        bell: Bell,
        *,
        ring_again_s: float,
        on_doorbell: Callable[[], None] = lambda: None,
    ) -> None:
        """`ring_again_s`: how long a queued job must have waited since its last doorbell. `on_doorbell` hears of new
        ones after the commit."""
        self._on_doorbell = on_doorbell
        self._database = database
        self._bell = bell
        self._ring_again_us = round(ring_again_s * 1e6)

    async def ring_again(self) -> int:
        """Writes new doorbells where they are missing; how many. The outbox rings them."""
        if not await self._count(jobs.c.rung_time < now_us() - self._ring_again_us):
            return 0
        try:
            underway = await self._bell.waiting() + await pending(self._database)
        except BrokerAway as error:
            log.warning("the broker is away; not ringing again", reason=str(error))
            return 0
        missing = await self._count(jobs.c.rung_time.is_not(None)) - underway
        return await self._ring(min(missing, _BATCH)) if missing > 0 else 0

    async def _count(self, condition: ColumnElement[bool]) -> int:
        async with self._database.read() as connection:
            query = select(func.count()).select_from(jobs).where(condition)
            return (await connection.execute(query)).scalar_one()

    async def _ring(self, limit: int) -> int:
        waiting = (jobs.c.state == State.QUEUED) & (jobs.c.rung_time < now_us() - self._ring_again_us)
        oldest = select(jobs.c.id).where(waiting).order_by(jobs.c.rung_time).limit(limit)
        statement = (
            update(jobs).where(jobs.c.id.in_(chosen_once(oldest))).values(rung_time=now_us()).returning(jobs.c.id)
        )
        async with self._database.write() as connection:
            found = list((await connection.execute(statement)).scalars())
            if found:
                rows = [{"job_id": job_id, "due_time": now_us(), "tries": 0} for job_id in found]
                await connection.execute(insert(doorbells).values(rows))
        if found:
            log.warning("ringing again", jobs=len(found))
            self._on_doorbell()
        return len(found)
