"""A worker comes after a doorbell: it is given the job whose turn it is in that queue, in one transaction.

The doorbell names a job, but says no more than that somebody should come to that job's queue (see `doorbells`). There
are as many doorbells as jobs that wait, so it does no harm if it starts another job than the one it was written for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import BigInteger, and_, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import now_us, serialise

from . import attempts, events, turns, vacancies
from .events import AttemptStart, Event, Payload, StateChange
from .jobs import HELD, Job, State
from .leases import Leases
from .ledger import Ledger, selected, to_job
from .nodes import Choice
from .presence import Workers
from .scheduling import Queues
from .standings import Standing, read_standing, write_turn
from .tables import job_definitions, jobs
from .tenants import Bounds

# The decision once more: the job is leased only if it still waits, whoever came between.
_LEASE = (
    update(jobs)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.state == State.QUEUED)
    .values(
        state=State.LEASED,
        attempt=jobs.c.attempt + 1,
        worker=bindparam("new_worker"),
        node=bindparam("new_node"),
        claim_time=now_us(),
        run_until=now_us() + jobs.c.max_run_time - jobs.c.run_time,
        lease_until=now_us() + bindparam("lease_us", type_=BigInteger),
        updates_received=0,
        progress=None,
        evaluation=None,
        queued_time=None,
        expire_time=None,
        retry_time=None,
        rung_time=None,
        last_sequence=jobs.c.last_sequence + 2,
        revision=jobs.c.revision + 1,
        update_time=now_us(),
    )
    .returning(jobs.c.last_sequence)
)
_CLAIMED = selected().add_columns(job_definitions.c.dataset_snapshot).where(jobs.c.id == bindparam("job_id"))
_NAMED = select(
    jobs.c.queue, and_(jobs.c.state.in_(HELD), jobs.c.lease_until < now_us()).label("is_dead")
).where(jobs.c.id == bindparam("job_id"))  # fmt: skip
_WAITED = select(now_us() - jobs.c.queued_time).where(jobs.c.id == bindparam("job_id"))


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that is the asking worker's now."""

    job: Job
    dataset: bytes = field(repr=False)
    """The dataset as it was when the job was submitted, serialized."""
    waited_us: int = 0
    """How long it had waited, in this wait."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who comes for a job."""

    worker: str
    node: str = ""
    """The machine that the worker is on."""


class Claims:
    """Gives queued jobs to workers."""

    def __init__(
        self,
        ledger: Ledger,
        leases: Leases,
        queues: Queues,
        defaults: Bounds,
        workers: Workers,
        *,
        on_claim: Callable[[Claim], None] = lambda _claim: None,
    ) -> None:
        """`defaults`: of tenants without bounds of their own. `on_claim` hears of each job that was given away, after
        the commit."""
        self._ledger = ledger
        self._leases = leases
        self._queues = queues
        self._defaults = defaults
        self._workers = workers
        self._on_claim = on_claim

    async def claim(self, job_id: str, asker: Asker) -> Claim | None:
        """The job whose turn it is in the queue of the one that the doorbell names; None if none may start now.

        If the named job's lease has run out it is taken back first (see `leases`).
        """
        queue = await self._queue_of(job_id)
        claim = None if queue is None else await self._take(queue, asker)
        if claim is not None:
            self._ledger.on_events(claim.job.id, claim.job.last_sequence)
            self._on_claim(claim)
        return claim

    async def _queue_of(self, job_id: str) -> str | None:
        async with self._ledger.database.read() as connection:
            named = (await connection.execute(_NAMED, {"job_id": job_id})).one_or_none()
        if named is None:
            return None  # a doorbell of a database that was put back to an earlier day
        if named.is_dead:
            await self._leases.take_back(job_id, ring=False)
        queue: str = named.queue
        return queue

    async def _take(self, queue: str, asker: Asker) -> Claim | None:
        async with self._ledger.database.write() as connection:
            await serialise(connection, vacancies.CLAIMS_LOCK)
            choice = await self._workers.choice(connection, queue, asker.node)
            if choice.is_kept_away:
                await vacancies.pass_on(connection, queue, is_idle_elsewhere=choice.is_idle_elsewhere)
                return None
            while True:
                standing = await read_standing(connection, queue, self._defaults, choice)
                candidates = standing.candidates(self._queues)
                chosen = turns.whose_turn(candidates, standing.tag)
                if chosen is None:
                    await self._spend(connection, standing, choice)
                    return None
                claim = await self._lease(connection, chosen.job_id, asker)
                if claim is not None:  # else it was cancelled or paused at the same moment
                    await write_turn(connection, standing, chosen, candidates)
                    return claim

    async def _spend(self, connection: AsyncConnection, standing: Standing, choice: Choice) -> None:
        """The doorbell is gone. If it is only too early for a job, or the wrong node, somebody must ring again."""
        if standing.is_anybody_ready:
            await vacancies.spend(connection, standing.queue)
        elif not standing.waiting:
            await vacancies.forget(connection, standing.queue)
        elif (await read_standing(connection, standing.queue, self._defaults)).is_anybody_ready:
            await vacancies.pass_on(connection, standing.queue, is_idle_elsewhere=choice.is_idle_elsewhere)

    async def _lease(self, connection: AsyncConnection, job_id: str, asker: Asker) -> Claim | None:
        """Raises the attempt and leases the job if it still waits."""
        waited_us = (await connection.execute(_WAITED, {"job_id": job_id})).scalar_one()
        asked = {
            "job_id": job_id, "new_worker": asker.worker, "new_node": asker.node,
            "lease_us": self._leases.duration_us,
        }  # fmt: skip
        if (await connection.execute(_LEASE, asked)).scalar_one_or_none() is None:
            return None
        row = (await connection.execute(_CLAIMED, {"job_id": job_id})).one()
        job = to_job(row)
        await _tell(connection, job)
        return Claim(job, row.dataset_snapshot, max(0, waited_us or 0))


async def _tell(connection: AsyncConnection, job: Job) -> None:
    payloads: tuple[Payload, ...] = (
        StateChange(State.LEASED, State.QUEUED, message=f"claimed by {job.worker}"),
        AttemptStart(job.worker, job.checkpoint),
    )
    first = job.last_sequence - len(payloads) + 1
    await attempts.begin(connection, job)
    await events.append(
        connection,
        job.id,
        [Event(first + i, job.update_time, job.attempt, payload) for i, payload in enumerate(payloads)],
    )
