"""What a claim needs to know of a queue: who waits, who runs how many, and what each may.

Costs by the number of tenants that wait and of jobs that workers hold, not by how many jobs wait or have ended: every
condition here is that of an index which holds only such jobs (see `tables`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BindParameter, Select, String, and_, bindparam, func, insert, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import now_us

from .nodes import ANYWHERE, Choice, is_better_elsewhere
from .scheduling import Queues
from .tables import jobs, queue_turns, tenants
from .tenants import Bounds
from .turns import Candidate, next_queue_tag, next_tag

_QUEUE: BindParameter[str] = bindparam("of_queue", type_=String)

_TAGS: dict[str, Any] = {"tag": bindparam("new_tag"), "queue_tag": bindparam("new_queue_tag")}
_TAKE_TURN = (
    update(queue_turns)
    .where(queue_turns.c.queue == _QUEUE, queue_turns.c.tenant == bindparam("of_tenant"))
    .values(_TAGS)
)
_FIRST_TURN = insert(queue_turns).values(queue=_QUEUE, tenant=bindparam("of_tenant"), **_TAGS)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A tenant with jobs that wait in the queue."""

    bounds: Bounds
    tag: float
    head: str | None
    """The id of the job that is first among the tenant's; None if each waits for its time to be tried again."""


@dataclass(frozen=True, slots=True)
class Held:
    """Jobs that workers hold, in all queues."""

    by_queue: Counter[str] = field(default_factory=Counter)
    by_tenant: Counter[str] = field(default_factory=Counter)
    by_both: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By queue and tenant."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A queue at one moment."""

    queue: str
    waiting: dict[str, Waiting]
    """By tenant."""
    held: Held
    tag: float
    """The queue's tag, see `turns`."""

    def candidates(self, queues: Queues) -> list[Candidate]:
        """The tenants that may start a job here now."""
        if not queues.room(self.queue, self.held.by_queue[self.queue]):
            return []
        return [
            Candidate(tenant, waiting.bounds.weight, self.held.by_both[self.queue, tenant], waiting.tag, waiting.head)
            for tenant, waiting in self.waiting.items()
            if waiting.head is not None and waiting.bounds.room(self.held.by_tenant[tenant])
        ]

    @property
    def is_anybody_ready(self) -> bool:
        """Whether any job waits for nothing but its turn and room."""
        return any(waiting.head is not None for waiting in self.waiting.values())


async def read_standing(
    connection: AsyncConnection, queue: str, defaults: Bounds, choice: Choice = ANYWHERE
) -> Standing:
    """The queue as this transaction sees it, without the jobs that are better off on another node than `choice`'s.
    `defaults` are for tenants without bounds of their own."""
    rows = (await connection.execute(_STANDING, {"of_queue": queue, **choice.parameters})).all()
    waiting = {
        row.tenant: Waiting(defaults.overlaid(row.weight, row.max_running_jobs, None), row.tag or 0.0, row.head)
        for row in rows
    }
    tag = rows[0].queue_tag if rows else None
    return Standing(queue, waiting, await read_held(connection), tag or 0.0)


async def read_ready(connection: AsyncConnection, queue: str) -> dict[str, int]:
    """How many jobs of each tenant wait for their turn or for room in the queue. Costs by their number."""
    rows = await connection.execute(_READY_BY_TENANT, {"of_queue": queue})
    return dict(rows.all())


async def write_turn(
    connection: AsyncConnection, standing: Standing, chosen: Candidate, candidates: Sequence[Candidate]
) -> None:
    """Records that the chosen one of the candidates has started a job. Only for claims, which exclude one another."""
    values = {
        "of_queue": standing.queue,
        "of_tenant": chosen.tenant,
        "new_tag": next_tag(chosen, standing.tag),
        "new_queue_tag": next_queue_tag(candidates, standing.tag),
    }
    if not (await connection.execute(_TAKE_TURN, values)).rowcount:
        await connection.execute(_FIRST_TURN, values)


async def read_held(connection: AsyncConnection) -> Held:
    """Who runs how many jobs."""
    held = Held()
    for queue, tenant, count in await connection.execute(_HELD):
        held.by_queue[queue] += count
        held.by_tenant[tenant] += count
        held.by_both[queue, tenant] += count
    return held


READY = and_(
    jobs.c.queued_time.is_not(None),
    or_(jobs.c.retry_time.is_(None), jobs.c.retry_time <= now_us()),
    or_(jobs.c.expire_time.is_(None), jobs.c.expire_time > now_us()),
)
"""A job that waits for its turn and for room, and for nothing else: not for its next try; and its time is not over."""

_READY_BY_TENANT = select(jobs.c.tenant, func.count()).where(jobs.c.queue == _QUEUE, READY).group_by(jobs.c.tenant)
_HELD = (
    select(jobs.c.queue, jobs.c.tenant, func.count())
    .where(jobs.c.lease_until.is_not(None))
    .group_by(jobs.c.queue, jobs.c.tenant)
)


def _standing() -> Select[Any]:
    """One row for each tenant that waits. They are found by leaps through the index, from one tenant to the next:
    however many jobs one of them has waiting, it is one leap."""
    in_queue = (jobs.c.queue == _QUEUE, jobs.c.queued_time.is_not(None))
    found = select(func.min(jobs.c.tenant).label("tenant")).where(*in_queue).cte("found", recursive=True)
    following = (
        select(func.min(jobs.c.tenant)).where(*in_queue, jobs.c.tenant > found.c.tenant).correlate(found)
    ).scalar_subquery()
    found = found.union_all(select(following).where(found.c.tenant.is_not(None)))
    head = (
        select(jobs.c.id)
        .where(jobs.c.queue == _QUEUE, jobs.c.tenant == found.c.tenant, READY, not_(is_better_elsewhere()))
        .order_by(jobs.c.precedence, jobs.c.place_time, jobs.c.id)
        .limit(1)
        .correlate(found)
    ).scalar_subquery()
    tag = select(func.max(queue_turns.c.queue_tag)).where(queue_turns.c.queue == _QUEUE).scalar_subquery()
    return (
        select(
            found.c.tenant, head.label("head"), tenants.c.weight, tenants.c.max_running_jobs,
            queue_turns.c.tag, tag.label("queue_tag"),
        )
        .select_from(found)
        .outerjoin(tenants, tenants.c.id == found.c.tenant)
        .outerjoin(queue_turns, and_(queue_turns.c.queue == _QUEUE, queue_turns.c.tenant == found.c.tenant))
        .where(found.c.tenant.is_not(None))
    )  # fmt: skip


_STANDING = _standing()
