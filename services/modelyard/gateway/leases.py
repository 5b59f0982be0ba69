"""What happens to a job whose worker has stopped reporting. One place decides, for the reaper and for claims alike.

A job whose result is recorded (`Job.is_publishing`) is not taken back: the gateway publishes it itself, see
`finishing`. Leases are measured by the database's clock alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import select

from modelyard.core.database import now_us
from modelyard.core.logs import get_logger

from .jobs import HELD, FailureReason, Job, State
from .ledger import Edit, Ledger
from .tables import jobs

log = get_logger()


class Leases:
    """Takes jobs back whose lease has run out.

    For one lease's length after the start (and after the database was away) nothing is taken back: the workers may well
    be alive and could only not report.
    """

    def __init__(
        self, ledger: Ledger, *, lease_s: float, max_attempts: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock`: seconds of this process, for the grace only."""
        self._ledger = ledger
        self.duration_s = lease_s
        self.duration_us = round(lease_s * 1e6)
        self._max_attempts = max_attempts
        self._clock = clock
        self._patient_until = 0.0
        self.give_grace()

    def give_grace(self) -> None:
        """Takes nothing back for one lease's length from now."""
        self._patient_until = self._clock() + self.duration_s

    def end_grace(self) -> None:
        """Takes leases back from now on."""
        self._patient_until = self._clock()

    @property
    def in_grace(self) -> bool:
        """Whether running attempts are being given time to report."""
        return self._clock() < self._patient_until

    async def take_back(self, job_id: str, *, ring: bool) -> State | None:
        """Takes the job back if its lease has run out; its new state, or None if there was nothing to do.

        `ring`: ask for a doorbell if it is queued again. Raises NotFound if there is no such job.
        """
        if self.in_grace:
            return None
        async with self._ledger.edit(job_id) as edit:
            if not _is_dead(edit):
                return None
            self._let_go(edit)
            if ring and edit.job.state is State.QUEUED:
                edit.ring()
        log.warning("lease ran out", job=job_id, attempt=edit.job.attempt, worker=edit.job.worker, now=edit.job.state)
        return edit.job.state

    async def reap(self, limit: int = 100) -> int:
        """Takes back up to `limit` jobs whose lease has run out; how many it was."""
        if self.in_grace:
            return 0
        query = (
            select(jobs.c.id)
            .where(jobs.c.lease_until < now_us(), ~((jobs.c.state == State.PUBLISHING) & jobs.c.artifact.is_not(None)))
            .order_by(jobs.c.lease_until)
            .limit(limit)
        )
        async with self._ledger.database.read() as connection:
            dead = list((await connection.execute(query)).scalars())
        return sum([await self.take_back(job_id, ring=True) is not None for job_id in dead])

    def _let_go(self, edit: Edit) -> None:
        job = edit.job
        if job.state is State.CANCELLING:
            edit.enter(State.CANCELLED, message="the worker stopped reporting")
            return
        if job.state is not State.LEASED:
            edit.change(suspect_attempts=job.suspect_attempts + 1)
        if job.attempt >= self._max_attempts:
            reason = _blame(edit.job)
            edit.enter(State.FAILED, failure_reason=reason, message=_MESSAGES[reason].format(job.attempt))
        else:
            edit.enter(State.QUEUED, message=f"the worker of attempt {job.attempt} stopped reporting")


_MESSAGES = {
    FailureReason.POISON: "each of {} attempts lost its worker while it worked on the job",
    FailureReason.LOST_WORKER: "the worker stopped reporting and none of {} attempts is left",
}


def _is_dead(edit: Edit) -> bool:
    job = edit.job
    if job.state not in HELD or job.is_publishing or job.lease_until is None:
        return False
    return job.lease_until < edit.now


def _blame(job: Job) -> FailureReason:
    """POISON if no attempt survived working on the job; a worker lost before that cannot be the job's doing."""
    is_poison = job.attempt > 1 and job.suspect_attempts == job.attempt
    return FailureReason.POISON if is_poison else FailureReason.LOST_WORKER
