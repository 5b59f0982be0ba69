"""A worker asks for a job after a doorbell; one conditional update decides."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import BigInteger, bindparam, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import now_us
from modelyard.core.errors import NotFound

from . import events
from .events import Event, StateChange
from .jobs import Job, State
from .leases import Leases
from .ledger import Ledger, selected, to_job
from .tables import job_definitions, jobs

# The decision: of any number of workers that ask at the same time, one finds the job still queued.
_LEASE = (
    update(jobs)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.state == State.QUEUED)
    .values(
        state=State.LEASED,
        attempt=jobs.c.attempt + 1,
        worker=bindparam("new_worker"),
        lease_until=now_us() + bindparam("lease_us", type_=BigInteger),
        updates_received=0,
        progress=None,
        evaluation=None,
        rung_time=None,
        last_sequence=jobs.c.last_sequence + 1,
        revision=jobs.c.revision + 1,
        update_time=now_us(),
    )
    .returning(jobs.c.last_sequence)
)
_CLAIMED = selected().add_columns(job_definitions.c.dataset_snapshot).where(jobs.c.id == bindparam("job_id"))


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that is the asking worker's now."""

    job: Job
    dataset: bytes = field(repr=False)
    """The dataset as it was when the job was submitted, serialized."""


class Claims:
    """Gives queued jobs to workers."""

    def __init__(self, ledger: Ledger, leases: Leases) -> None:
        self._ledger = ledger
        self._leases = leases

    async def claim(self, job_id: str, worker: str) -> Claim | None:
        """The job if it was free, else None. A lease that has run out is taken back first (see `leases`)."""
        claim = await self._take(job_id, worker)
        if claim is None and await self._freed(job_id):
            claim = await self._take(job_id, worker)
        return claim

    async def _freed(self, job_id: str) -> bool:
        try:
            state = await self._leases.take_back(job_id, ring=False)
            if state is None:  # nothing to take back, or the reaper came first
                state = (await self._ledger.get(job_id)).state
        except NotFound:
            return False  # a doorbell of a database that was put back to an earlier day
        return state is State.QUEUED

    async def _take(self, job_id: str, worker: str) -> Claim | None:
        async with self._ledger.database.write() as connection:
            sequence = await _lease(connection, job_id, worker, self._leases.duration_us)
            if sequence is None:
                return None
            row = (await connection.execute(_CLAIMED, {"job_id": job_id})).one()
            job = to_job(row)
            change = StateChange(State.LEASED, State.QUEUED, message=f"claimed by {worker}")
            await events.append(connection, job_id, [Event(sequence, job.update_time, job.attempt, change)])
        self._ledger.on_events(job_id, sequence)
        return Claim(job, row.dataset_snapshot)


async def _lease(connection: AsyncConnection, job_id: str, worker: str, lease_us: int) -> int | None:
    """Raises the attempt and leases the job if it is queued; the sequence number of the event to write, else None."""
    parameters = {"job_id": job_id, "new_worker": worker, "lease_us": lease_us}
    sequence: int | None = (await connection.execute(_LEASE, parameters)).scalar_one_or_none()
    return sequence
