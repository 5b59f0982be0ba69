"""Rings when a job that could not start may start now.

A worker that comes for a doorbell while jobs wait that may not start (their tenant or their queue runs as many as it
may, or the worker's node is kept away) goes away with nothing, and the doorbell is gone. Such doorbells are counted by
queue. Whenever a worker lets a job go, one is rung again in the job's queue and in every other one where its tenant
waits. If it is too early still, it is counted again.
"""

from __future__ import annotations

from sqlalchemy import bindparam, exists, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import now_us, serialise

from . import doorbells
from .doorbells import Doorbell
from .jobs import Job
from .tables import jobs, spent_doorbells

CLAIMS_LOCK = 0x7475726E73
"""Any fixed number. Claims exclude one another, since a tenant's limit reaches over all queues; and they exclude
whatever makes room, since a claim that saw no room must have counted its doorbell before somebody looks for it."""

_queue = spent_doorbells.c.queue
_spent = spent_doorbells.c.count
_SPEND = update(spent_doorbells).where(_queue == bindparam("of_queue")).values(count=_spent + 1)
_FIRST = insert(spent_doorbells).values(queue=bindparam("of_queue"), count=1)
_TENANT_WAITS = exists().where(
    jobs.c.tenant == bindparam("of_tenant"), jobs.c.queue == _queue, jobs.c.queued_time.is_not(None)
)
_TAKE_ONE = (
    update(spent_doorbells)
    .where(_spent > 0, or_(_queue == bindparam("of_queue"), _TENANT_WAITS))
    .values(count=_spent - 1)
    .returning(_queue)
)
_FORGET = update(spent_doorbells).where(_queue == bindparam("of_queue"), _spent > 0).values(count=0)
_PASS_ON_US = 1_000_000
_SOON = select(now_us() + _PASS_ON_US)
_WAITING = select(jobs.c.id).where(jobs.c.queue == bindparam("of_queue"), jobs.c.queued_time.is_not(None)).limit(1)


async def spend(connection: AsyncConnection, queue: str) -> None:
    """Counts a doorbell that has started nothing. Only for claims, which exclude one another."""
    if not (await connection.execute(_SPEND, {"of_queue": queue})).rowcount:
        await connection.execute(_FIRST, {"of_queue": queue})


async def pass_on(connection: AsyncConnection, queue: str, *, is_idle_elsewhere: bool) -> None:
    """The doorbell was for a worker on another node than the one that came: it rings again in a moment if such a worker
    is idle, and otherwise when one lets a job go."""
    job_id = (await connection.execute(_WAITING, {"of_queue": queue})).scalar_one_or_none()
    if job_id is None:
        return
    if is_idle_elsewhere:
        soon = (await connection.execute(_SOON)).scalar_one()
        await doorbells.write_for_later(connection, job_id, queue, soon)
    else:
        await spend(connection, queue)


async def ring_for(connection: AsyncConnection, released: Job) -> list[Doorbell]:
    """Writes the doorbells that this job's end makes due; ring them after the commit."""
    await serialise(connection, CLAIMS_LOCK, shared=True)
    found = await connection.execute(_TAKE_ONE, {"of_queue": released.queue, "of_tenant": released.tenant})
    written = [await _write(connection, queue) for queue in found.scalars().all()]
    return [doorbell for doorbell in written if doorbell is not None]


async def ring_all_for(connection: AsyncConnection, tenant: str) -> list[Doorbell]:
    """Writes as many doorbells as were spent in the queues where this tenant waits: it may run more jobs now."""
    await serialise(connection, CLAIMS_LOCK)
    waits = select(jobs.c.queue).where(jobs.c.tenant == tenant, jobs.c.queued_time.is_not(None)).distinct()
    query = select(_queue, _spent).where(_spent > 0, _queue.in_(waits))
    due = (await connection.execute(query)).all()
    written = []
    for queue, count in due:
        await forget(connection, queue)
        written += [await _write(connection, queue) for _ in range(count)]
    return [doorbell for doorbell in written if doorbell is not None]


async def forget(connection: AsyncConnection, queue: str) -> None:
    """The queue's doorbells have been rung again, or nobody waits."""
    await connection.execute(_FORGET, {"of_queue": queue})


async def _write(connection: AsyncConnection, queue: str) -> Doorbell | None:
    job_id = (await connection.execute(_WAITING, {"of_queue": queue})).scalar_one_or_none()
    return None if job_id is None else await doorbells.write(connection, job_id, queue)
