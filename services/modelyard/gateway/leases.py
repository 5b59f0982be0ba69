"""What happens to a job whose worker has stopped reporting, or does not stop when its time is over. One place decides,
for the reaper and for claims alike; what becomes of the job then is for `retries`.

A job whose result is recorded (`Job.is_publishing`) is not taken back: the gateway publishes it itself, see
`finishing`. Leases are measured by the database's clock alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import ColumnElement, select

from modelyard.core.database import now_us
from modelyard.core.logs import get_logger

from .attempts import EndCause
from .jobs import HELD, FailureReason, State
from .ledger import Edit, Ledger
from .retries import Ending, Retries, over_time
from .tables import jobs

log = get_logger()


class Leases:
    """Takes jobs back whose lease has run out.

    For one lease's length after the start (and after the database was away) nothing is taken back: the workers may well
    be alive and could only not report.
    """

    def __init__(
        self, ledger: Ledger, retries: Retries, *, lease_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock`: seconds of this process, for the grace only."""
        self._ledger = ledger
        self.duration_s = lease_s
        self.duration_us = round(lease_s * 1e6)
        self._retries = retries
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
        """Takes the job back if its lease has run out, or its time to run a lease's length ago; its new state, or None
        if there was nothing to do.

        `ring`: ask for a doorbell if it is queued again at once. Raises NotFound if there is no such job.
        """
        if self.in_grace:
            return None
        async with self._ledger.edit(job_id) as edit:
            ending = self._ending(edit)
            if ending is None:
                return None
            self._retries.end(edit, ending, ring=ring)
        log.warning(
            "took a job back", job=job_id, attempt=edit.job.attempt, worker=edit.job.worker, cause=ending.cause,
            now=edit.job.state,
        )  # fmt: skip
        return edit.job.state

    async def reap(self, limit: int = 100) -> int:
        """Takes back up to `limit` jobs that lost their workers and as many whose time to run is over; how many."""
        if self.in_grace:
            return 0
        lost = await self._find(jobs.c.lease_until, jobs.c.lease_until < now_us(), limit)
        late = await self._find(jobs.c.run_until, jobs.c.run_until < now_us() - self.duration_us, limit)
        return sum([await self.take_back(job_id, ring=True) is not None for job_id in dict.fromkeys(lost + late)])

    async def _find(self, order: ColumnElement[int | None], condition: ColumnElement[bool], limit: int) -> list[str]:
        is_publishing = (jobs.c.state == State.PUBLISHING) & jobs.c.artifact.is_not(None)
        query = select(jobs.c.id).where(condition, ~is_publishing).order_by(order).limit(limit)
        async with self._ledger.database.read() as connection:
            return list((await connection.execute(query)).scalars())

    def _ending(self, edit: Edit) -> Ending | None:
        job = edit.job
        if job.state not in HELD or job.is_publishing:
            return None
        if job.lease_until is not None and job.lease_until < edit.now:
            return Ending(EndCause.WORKER_LOST, f"the worker of attempt {job.attempt} stopped reporting")
        if job.max_run_time is not None and job.run_until is not None and job.run_until < edit.now - self.duration_us:
            message = over_time(job.max_run_time)
            return Ending(EndCause.DEADLINE, message, FailureReason.DEADLINE)
        return None
