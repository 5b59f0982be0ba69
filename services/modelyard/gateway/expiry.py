"""Ends jobs that have waited longer than they may."""

from __future__ import annotations

from sqlalchemy import select

from modelyard.core.database import now_us
from modelyard.core.logs import get_logger

from .jobs import FailureReason, State
from .ledger import Ledger
from .tables import jobs

_OVERDUE = select(jobs.c.id).where(jobs.c.expire_time <= now_us()).order_by(jobs.c.expire_time)

log = get_logger()


class Expiry:
    """Fails jobs whose time to wait is over. No claim gives one away any more, so it does not matter when this runs."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def expire(self, limit: int = 100) -> bool:
        """Fails up to `limit` of them; whether there may be more."""
        async with self._ledger.database.read() as connection:
            overdue = list((await connection.execute(_OVERDUE.limit(limit))).scalars())
        for job_id in overdue:
            await self._expire(job_id)
        return len(overdue) == limit

    async def _expire(self, job_id: str) -> None:
        async with self._ledger.edit(job_id) as edit:
            job = edit.job
            if job.expire_time is None or job.max_queue_time is None or job.expire_time > edit.now:
                return  # somebody else was here first
            waited = f"the job waited longer than its max_queue_time of {job.max_queue_time / 1e6:g} s"
            edit.enter(State.FAILED, failure_reason=FailureReason.QUEUE_EXPIRED, message=waited)
        log.info("waited too long", job=job_id)
