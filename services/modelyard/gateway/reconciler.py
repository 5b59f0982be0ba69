"""Rings again for queued jobs that nobody has come for: the broker may have lost or never had their doorbells.

In each queue it rings only for as many jobs as the broker and the outbox have fewer doorbells than there are jobs that
could start. So a long queue behind busy workers does not fill the broker with repetitions, a broker that lost
everything is refilled, and jobs that may not start yet are not rung for in vain (see `vacancies`).
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database, now_us
from modelyard.core.logs import get_logger

from . import vacancies
from .outbox import Bell, BrokerAway, pending
from .scheduling import Queues
from .selection import chosen_once
from .standings import READY, read_ready, read_standing
from .tables import doorbells, jobs
from .tenants import Bounds

_BATCH = 500

_RUNG_LONG_AGO = select(jobs.c.queue).where(jobs.c.rung_time < now_us() - bindparam("ring_again_us")).distinct()

log = get_logger()


class Reconciler:
    """Makes up for lost doorbells."""

    def __init__(
        self,
        database: Database,
        bell: Bell,
        queues: Queues,
        defaults: Bounds,
        *,
        ring_again_s: float,
        on_doorbell: Callable[[], None] = lambda: None,
    ) -> None:
        """`defaults`: of tenants without bounds of their own. `ring_again_s`: how long a queued job must have waited
        since its last doorbell. `on_doorbell` hears of new ones after the commit."""
        self._database = database
        self._bell = bell
        self._queues = queues
        self._defaults = defaults
        self._ring_again_us = round(ring_again_s * 1e6)
        self._on_doorbell = on_doorbell

    async def ring_again(self) -> int:
        """Writes new doorbells where they are missing; how many. The outbox rings them."""
        async with self._database.read() as connection:
            found = await connection.execute(_RUNG_LONG_AGO, {"ring_again_us": self._ring_again_us})
            queues = found.scalars().all()
        return sum([await self._ring_again_in(queue) for queue in queues])

    async def _ring_again_in(self, queue: str) -> int:
        try:
            underway = await self._bell.waiting(queue) + (await pending(self._database))[queue]
        except BrokerAway as error:
            log.warning("the broker is away; not ringing again", queue=queue, reason=str(error))
            return 0
        async with self._database.read() as connection:
            missing = await self._startable(connection, queue) - underway
        return await self._ring(queue, min(missing, _BATCH)) if missing > 0 else 0

    async def _startable(self, connection: AsyncConnection, queue: str) -> int:
        """How many jobs of the queue could start if there were workers enough."""
        standing = await read_standing(connection, queue, self._defaults)
        held, ready = standing.held, await read_ready(connection, queue)
        wanted = sum(
            waiting.bounds.room(held.by_tenant[tenant], ready.get(tenant, 0))
            for tenant, waiting in standing.waiting.items()
        )
        return self._queues.room(queue, held.by_queue[queue], wanted)

    async def _ring(self, queue: str, limit: int) -> int:
        waiting = (jobs.c.queue == queue) & READY & (jobs.c.rung_time < now_us() - self._ring_again_us)
        oldest = select(jobs.c.id).where(waiting).order_by(jobs.c.rung_time).limit(limit)
        statement = (
            update(jobs).where(jobs.c.id.in_(chosen_once(oldest))).values(rung_time=now_us()).returning(jobs.c.id)
        )
        async with self._database.write() as connection:
            found = list((await connection.execute(statement)).scalars())
            if found:
                rows = [{"job_id": job_id, "queue": queue, "due_time": now_us(), "tries": 0} for job_id in found]
                await connection.execute(insert(doorbells).values(rows))
                await vacancies.forget(connection, queue)
        if found:
            log.warning("ringing again", queue=queue, jobs=len(found))
            self._on_doorbell()
        return len(found)
