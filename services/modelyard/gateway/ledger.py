"""The one way to change a job: open it under its row's lock, edit, and let it be written with its events.

    async with ledger.edit(job_id) as edit:
        edit.require_attempt(attempt)
        edit.enter(State.RUNNING)

At the end the differences, the events and a doorbell (if one is wanted) are written in one transaction; if anything is
raised nothing is. After the commit the watchers are told and the relay is woken, in this process; others poll.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from typing import Any

from sqlalchemy import Row, Select, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database, now_us
from modelyard.core.errors import NotFound, StaleAttempt

from . import attempts, checkpoints, doorbells, events, vacancies
from .checkpoints import Checkpoint
from .doorbells import Doorbell
from .events import AttemptEnd, Document, Event, Kind, Payload, StateChange
from .jobs import HELD, FailureReason, Job, State, check_transition, job_name
from .progress import level_of
from .tables import job_definitions, jobs

_JOB_COLUMNS = [
    *(column for column in jobs.c if column.name not in {"request_id", "request_digest"}),
    job_definitions.c.spec,
]
_MUTABLE = (
    "state", "failure_reason", "failure_message", "attempt", "suspect_attempts", "finished_attempt", "worker",
    "lease_until", "updates_received", "progress", "evaluation", "artifact", "artifact_digest", "model_version",
    "cancel_request_id", "queued_time", "expire_time", "place_time", "rung_time", "start_time", "finish_time",
    "claim_time", "run_until", "run_time", "infrastructure_retries", "preemptions", "user_retries", "retry_time",
    "progress_count", "progress_sequence", "checkpoint", "checkpoint_step", "pause_request_id", "resume_request_id",
    "preempt_request_id", "preempted_attempt", "preempted_by",
)  # fmt: skip
_FIELDS = tuple(field.name for field in fields(Job))

# Statements that are executed for every call are built once: building one costs as much as executing it.
_JOBS = select(*_JOB_COLUMNS).join(job_definitions, job_definitions.c.job_id == jobs.c.id)
_BY_ID = _JOBS.where(jobs.c.id == bindparam("job_id"))
_LOCKED = _BY_ID.add_columns(now_us().label("now")).with_for_update(of=jobs)
_UPDATE = update(jobs).where(jobs.c.id == bindparam("job_id"))


class Edit:
    """A job whose row is locked, with what is to be changed on it and what is to be told about it."""

    def __init__(self, job: Job, now: int, connection: AsyncConnection) -> None:
        self._before = job
        self.connection = connection
        """The transaction."""
        self.job = job
        """The job as it will be written."""
        self.now = now
        """The database's clock, in microseconds; never before the job's last change."""
        self.events: list[Event] = []
        """What will be added to the job's history."""
        self._end: AttemptEnd | None = None
        self._checkpoints: list[tuple[Checkpoint, bool]] = []
        self._ring = False
        self.doorbells: list[Doorbell] = []
        """The doorbells that were written, to be rung after the commit."""

    def require_attempt(self, attempt: int) -> None:
        """The fence: raises StaleAttempt unless this attempt holds the job."""
        if attempt != self.job.attempt or self.job.state not in HELD:
            raise StaleAttempt(
                f"attempt {attempt} no longer holds {self.job.name}; stop its work",
                metadata={"attempt": str(self.job.attempt), "state": self.job.state},
            )

    def change(self, **values: Any) -> None:
        """Sets fields of the job."""
        self.job = replace(self.job, **values)

    def tell(self, payload: Payload) -> None:
        """Adds an event."""
        sequence, level = self.job.last_sequence + 1, None
        if isinstance(payload, Document) and payload.kind is Kind.PROGRESS:
            number = self.job.progress_count + 1
            self.change(progress_count=number, progress_sequence=sequence)
            level = level_of(number)
        self.events.append(Event(sequence, self.now, self.job.attempt, payload, level))
        self.change(last_sequence=sequence)

    def enter(
        self,
        state: State,
        *,
        failure_reason: FailureReason | None = None,
        message: str = "",
        model_version: str = "",
    ) -> None:
        """Moves the job to another state and tells of it; raises WrongState if the table does not allow the move."""
        previous = self.job.state
        check_transition(previous, state)
        self.change(state=state)
        if state not in HELD:
            self.change(
                lease_until=None, claim_time=None, run_until=None, rung_time=None, retry_time=None, queued_time=None,
                expire_time=None,
            )  # fmt: skip
        if state is State.QUEUED:
            self._wait()
        if self.job.is_terminal:
            self.change(finish_time=self.now, model_version=model_version)
        if state is State.FAILED:
            self.change(failure_reason=failure_reason, failure_message=message)
        if state is State.RUNNING and self.job.start_time is None:
            self.change(start_time=self.now)
        self.tell(StateChange(state, previous, failure_reason, message, model_version))

    def _wait(self) -> None:
        """A new wait begins, in the old place; see `go_behind`."""
        limit = self.job.max_queue_time
        self.change(queued_time=self.now, expire_time=None if limit is None else self.now + limit)

    def go_behind(self) -> None:
        """Gives up the job's place: it is behind what waits with the same priority now."""
        self.change(place_time=self.now)

    def end_attempt(self, end: AttemptEnd) -> None:
        """The attempt that holds the job is over; the caller moves the job to where it belongs now."""
        self.change(run_time=self.run_time, claim_time=None)
        self._end = end
        self.tell(end)

    @property
    def run_time(self) -> int:
        """How long attempts have held workers until now, in microseconds."""
        return self.job.run_time + self.now - (self.job.claim_time or self.now)

    def add_checkpoint(self, checkpoint: Checkpoint, *, wanted: bool) -> None:
        """Records a checkpoint as the job's newest; or, if it is not wanted, only so that its blob is removed."""
        self._checkpoints.append((checkpoint, wanted))
        if wanted:
            self.change(checkpoint=checkpoint, checkpoint_step=checkpoint.step)
            self.tell(checkpoint)

    def ring(self) -> None:
        """Asks for a doorbell for this job; it rings at `retry_time` if there is one."""
        self._ring = True
        self.change(rung_time=max(self.now, self.job.retry_time or 0))

    async def save(self, *, keep_last_checkpoint_us: int) -> None:
        """Writes what has changed. Called by the ledger."""
        before, after = self._before, self.job
        connection = self.connection
        for checkpoint, wanted in self._checkpoints:
            await checkpoints.add(connection, after.id, checkpoint, wanted=wanted)
        if after == before:
            return
        self.change(revision=before.revision + 1, update_time=self.now)
        changed = {name: _column(after, name) for name in _MUTABLE if getattr(after, name) != getattr(before, name)}
        changed |= {"last_sequence": after.last_sequence, "revision": self.job.revision, "update_time": self.now}
        await connection.execute(_UPDATE, {"job_id": after.id, **changed})
        await events.append(connection, after.id, self.events)
        if self._end is not None:
            end = self._end
            await attempts.end(
                connection, after.id, after.attempt, time=self.now, cause=end.cause, message=end.message
            )  # fmt: skip
        if self.ended:
            kept_us = 0 if after.state is State.SUCCEEDED else keep_last_checkpoint_us
            await checkpoints.retire(connection, after.id, now=self.now, last_until=self.now + kept_us)
        if self._ring:
            await self._write_doorbell()
        if self.released:
            self.doorbells += await vacancies.ring_for(connection, after)

    async def _write_doorbell(self) -> None:
        job = self.job
        if job.retry_time is not None and job.retry_time > self.now:
            await doorbells.write_for_later(self.connection, job.id, job.queue, job.retry_time)
        else:
            self.doorbells.append(await doorbells.write(self.connection, job.id, job.queue))

    @property
    def released(self) -> bool:
        """Whether a worker held the job and none does any more."""
        return self._before.state in HELD and self.job.state not in HELD

    @property
    def ended(self) -> bool:
        """Whether the job is over by this edit."""
        return self.job.is_terminal and not self._before.is_terminal

    @property
    def told(self) -> bool:
        """Whether there is anything new in the job's history."""
        return bool(self.events)


class Ledger:
    """Reads jobs and changes them."""

    def __init__(
        self,
        database: Database,
        *,
        on_events: Callable[[str, int], None] = lambda _job_id, _sequence: None,
        on_doorbell: Callable[[Doorbell], None] = lambda _doorbell: None,
        on_edit: Callable[[Edit], None] = lambda _edit: None,
        keep_last_checkpoint_s: float = 3600.0,
    ) -> None:
        """`on_events` hears of a job's new last sequence number, `on_doorbell` of each doorbell that this process is to
        ring, `on_edit` of each edit, after the commit. `keep_last_checkpoint_s`: for how long the newest checkpoint of
        a job that failed or was cancelled stays."""
        self.database = database
        self.on_events = on_events
        self.on_doorbell = on_doorbell
        self.on_edit = on_edit
        self._keep_last_checkpoint_us = round(keep_last_checkpoint_s * 1e6)

    @asynccontextmanager
    async def edit(self, job_id: str, *, tenant: str | None = None) -> AsyncIterator[Edit]:
        """The job, locked; raises NotFound if there is none, or none in `tenant` (None: any)."""
        async with self.database.write() as connection:
            edit = await _open(connection, job_id, tenant)
            yield edit
            await edit.save(keep_last_checkpoint_us=self._keep_last_checkpoint_us)
        self.announce(edit)

    def announce(self, edit: Edit) -> None:
        """Tells this process what has been committed."""
        if edit.told:
            self.on_events(edit.job.id, edit.job.last_sequence)
        for doorbell in edit.doorbells:
            self.on_doorbell(doorbell)
        self.on_edit(edit)

    async def get(self, job_id: str, *, tenant: str | None = None) -> Job:
        """One job as it is now; raises NotFound as `edit` does."""
        async with self.database.read() as connection:
            row = (await connection.execute(_BY_ID, {"job_id": job_id})).one_or_none()
        return to_job(_visible(row, job_id, tenant))


async def _open(connection: AsyncConnection, job_id: str, tenant: str | None) -> Edit:
    row = _visible((await connection.execute(_LOCKED, {"job_id": job_id})).one_or_none(), job_id, tenant)
    job = to_job(row)
    return Edit(job, max(row.now, job.update_time), connection)


def _visible(row: Row[Any] | None, job_id: str, tenant: str | None) -> Row[Any]:
    if row is None or (tenant is not None and row.tenant != tenant):
        raise NotFound.resource(job_name(job_id))
    return row


def selected(tenant: str | None = None) -> Select[Any]:
    """A query for whole jobs, of one tenant or (None) of all; read its rows with `to_job`."""
    return _JOBS if tenant is None else _JOBS.where(jobs.c.tenant == tenant)


def to_job(row: Row[Any]) -> Job:
    """The job in a row of `selected`."""
    values = {name: getattr(row, name) for name in _FIELDS}
    values["state"] = State(values["state"])
    values["failure_reason"] = FailureReason(values["failure_reason"]) if values["failure_reason"] else None
    values["checkpoint"] = Checkpoint.decode(values["checkpoint"]) if values["checkpoint"] else None
    return Job(**values)


def _column(job: Job, name: str) -> Any:
    """A field of the job as its column has it."""
    value = getattr(job, name)
    return value.encode() if isinstance(value, Checkpoint) else value
