"""A user submits a job: everything that can be known is checked, then it is written once."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import Protocol

from sqlalchemy import BigInteger, bindparam, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import now_us
from modelyard.core.errors import ModelyardError, RequestIdReused
from modelyard.core.tokens import Caller

from . import doorbells, events
from .doorbells import Doorbell
from .events import Event, StateChange
from .jobs import Job, State
from .ledger import Ledger, selected, to_job
from .scheduling import Scheduling
from .tables import job_definitions, jobs
from .tenants import Bounds, check_waiting

_TIMES = ("create_time", "update_time", "queued_time", "expire_time", "place_time", "rung_time")
_WRITTEN = tuple({column.name for column in jobs.c} & set(Job.__slots__) - set(_TIMES))
# Built once, see `ledger`.
_BY_REQUEST_ID = (
    selected()
    .add_columns(jobs.c.request_digest)
    .where(jobs.c.tenant == bindparam("of_tenant"), jobs.c.request_id == bindparam("of_request"))
)
_INSERT_JOB = (
    insert(jobs)
    .values(dict.fromkeys(_TIMES, now_us()) | {"expire_time": now_us() + bindparam("wait_us", type_=BigInteger)})
    .returning(*(jobs.c[name] for name in _TIMES))
)
_INSERT_DEFINITION = insert(job_definitions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a user sent, its form checked."""

    display_name: str
    labels: dict[str, str]
    spec: bytes = field(repr=False)
    """The spec as it was sent, serialized."""
    scheduling: Scheduling
    request_id: str
    """Empty if the user gave none."""
    content_digest: str
    """SHA-256 over all of the content, to tell a repeated request from another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A checked spec and what follows from it."""

    spec: bytes = field(repr=False)
    """With every default filled in, serialized."""
    spec_digest: str
    model: str
    alias: str
    dataset: str
    dataset_digest: str
    dataset_snapshot: bytes = field(repr=False)
    """The dataset as it is now, serialized."""
    parameter_count: int


class Planner(Protocol):
    """Checks specs against the data."""

    async def plan(self, spec: bytes, caller: Caller) -> Plan:
        """The plan for this caller.

        Raises InvalidFields, NotFound for the dataset, AlreadyExists for a model of another tenant, Unavailable if the
        registry is away.
        """


class Submissions:
    """Takes jobs in."""

    def __init__(self, ledger: Ledger, planner: Planner, defaults: Bounds) -> None:
        """`defaults`: of tenants without bounds of their own."""
        self._ledger = ledger
        self._planner = planner
        self._defaults = defaults

    async def submit(self, submission: Submission, caller: Caller, *, validate_only: bool = False) -> Job:
        """The new job, or the one that this request has made before.

        `validate_only`: the job as it would be, without an id. Raises RequestIdReused, and ResourceExhausted if the
        tenant has too many jobs waiting, beside what the planner raises.
        """
        if validate_only:
            return await self._known(submission, caller.tenant) or await self._validated(submission, caller)
        try:
            plan = await self._planner.plan(submission.spec, caller)
            job, doorbell = await self._insert(_new_job(submission, caller, plan), submission, plan)
        except (IntegrityError, ModelyardError):
            # Made before, it is answered whatever has become of dataset, registry or limits since. Most requests are
            # new: they are not looked for first, the index on their ids tells.
            known = await self._known(submission, caller.tenant)
            if known is None:
                raise
            return known
        self._ledger.on_events(job.id, job.last_sequence)
        self._ledger.on_doorbell(doorbell)
        return job

    async def _validated(self, submission: Submission, caller: Caller) -> Job:
        plan = await self._planner.plan(submission.spec, caller)
        return replace(_new_job(submission, caller, plan), id="")

    async def _known(self, submission: Submission, tenant: str) -> Job | None:
        if not submission.request_id:
            return None
        async with self._ledger.database.read() as connection:
            key = {"of_tenant": tenant, "of_request": submission.request_id}
            row = (await connection.execute(_BY_REQUEST_ID, key)).one_or_none()
        if row is None:
            return None
        if row.request_digest != submission.content_digest:
            raise RequestIdReused(f"the request_id {submission.request_id} belongs to a request with other content")
        return to_job(row)

    async def _insert(self, job: Job, submission: Submission, plan: Plan) -> tuple[Job, Doorbell]:
        """Job, first event and doorbell in one transaction."""
        async with self._ledger.database.write() as connection:
            await check_waiting(connection, job.tenant, self._defaults)
            job = await _insert_row(connection, job, submission)
            definition = {"job_id": job.id, "spec": plan.spec, "dataset_snapshot": plan.dataset_snapshot}
            await connection.execute(_INSERT_DEFINITION, definition)
            await events.append(connection, job.id, [Event(1, job.create_time, 0, StateChange(State.QUEUED))])
            return job, await doorbells.write(connection, job.id, job.queue)


def _new_job(submission: Submission, caller: Caller, plan: Plan) -> Job:
    scheduling = submission.scheduling
    return Job(
        id=secrets.token_hex(8),
        tenant=caller.tenant,
        creator=caller.subject,
        display_name=submission.display_name,
        labels=submission.labels,
        model=plan.model,
        alias=plan.alias,
        dataset=plan.dataset,
        dataset_digest=plan.dataset_digest,
        spec=plan.spec,
        spec_digest=plan.spec_digest,
        parameter_count=plan.parameter_count,
        queue=scheduling.queue,
        precedence=-scheduling.priority,
        max_queue_time=scheduling.max_queue_time,
        max_run_time=scheduling.max_run_time,
        max_retries=scheduling.max_retries,
        last_sequence=1,
        revision=1,
    )


async def _insert_row(connection: AsyncConnection, job: Job, submission: Submission) -> Job:
    values = {name: getattr(job, name) for name in _WRITTEN}
    values |= {
        "request_id": submission.request_id or None,
        "request_digest": submission.content_digest,
        "wait_us": job.max_queue_time,
    }
    row = (await connection.execute(_INSERT_JOB, values)).one()
    return replace(job, **row._asdict())
