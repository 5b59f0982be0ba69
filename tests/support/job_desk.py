"""The gateway's domain on a real database, without a transport: what its unit tests work with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, true, update

from modelyard.core.database import Database
from modelyard.core.errors import ModelyardError, Unavailable
from modelyard.core.permissions import permissions_of
from modelyard.core.tokens import Caller
from modelyard.gateway import events, tables
from modelyard.gateway.cancellation import Cancellation
from modelyard.gateway.claims import Asker, Claim, Claims
from modelyard.gateway.doorbells import Doorbell
from modelyard.gateway.events import Event
from modelyard.gateway.expiry import Expiry
from modelyard.gateway.explanations import Explanations
from modelyard.gateway.finishing import Finishing, PublicationRefused, Result
from modelyard.gateway.jobs import Job
from modelyard.gateway.leases import Leases
from modelyard.gateway.ledger import Ledger
from modelyard.gateway.notices import Notices
from modelyard.gateway.outbox import Bell, Outbox
from modelyard.gateway.pausing import Pausing
from modelyard.gateway.presence import Workers
from modelyard.gateway.queueing_converters import remaining_s
from modelyard.gateway.reports import Receipt, Reports, Saved, Update
from modelyard.gateway.retries import Retries
from modelyard.gateway.scheduling import Queues, Scheduling
from modelyard.gateway.submission import Plan, Submission, Submissions
from modelyard.gateway.tenants import Bounds, Tenants
from modelyard.gateway.watch import Watch

LEASE_S = 45.0
MAX_ATTEMPTS = 3
RETRY_DELAY_S = 5.0
KEEP_LAST_CHECKPOINT_S = 1800.0


def caller(*roles: str, subject: str = "tester", tenant: str = "default") -> Caller:
    """A caller with these roles (default: developer)."""
    names = frozenset(roles or ("developer",))
    return Caller(subject, tenant, names, permissions_of(names), "token", 2e9)


def submission(
    request_id: str = "",
    content_digest: str = "c" * 64,
    display_name: str = "a job",
    spec: bytes = b"spec",
    **scheduling: Any,
) -> Submission:
    """What a user might send."""
    return Submission(
        display_name=display_name,
        labels={"team": "blue"},
        spec=spec,
        scheduling=Scheduling(**scheduling),
        request_id=request_id,
        content_digest=content_digest,
    )


def result(digest: str = "d" * 64) -> Result:
    """What a successful attempt might have uploaded."""
    return Result(digest=digest, artifact=b"artifact " + digest.encode(), evaluation=b"evaluation")


def saved(step: int, letter: str = "") -> Saved:
    """A checkpoint that a worker might have uploaded; its digest is of one letter, or goes by the step."""
    return Saved(epoch=step // 100, step=step, digest=letter * 64 or f"{step:064d}", size_bytes=1000)


@dataclass
class FixedPlanner:
    """Accepts every spec, unless it is told what is wrong."""

    fault: ModelyardError | None = None

    async def plan(self, spec: bytes, caller: Caller) -> Plan:
        """A plan with this spec."""
        if self.fault is not None:
            raise self.fault
        return Plan(
            spec=spec,
            spec_digest="e" * 64,
            model="house-prices",
            alias="live",
            dataset="houses",
            dataset_digest="f" * 64,
            dataset_snapshot=b"the dataset",
            parameter_count=1081,
        )


@dataclass
class MemoryPublisher:
    """A registry's side of publishing: idempotent by job, and able to fail before or after it has done the work."""

    versions: dict[str, str] = field(default_factory=dict)
    """Job id to version name."""
    artifacts: list[bytes | None] = field(default_factory=list)
    """One entry for each version that was created."""
    away_before: bool = False
    away_after: bool = False
    refusal: str = ""

    async def publish(self, job: Job) -> str:
        """See `finishing.Publisher`."""
        if self.away_before:
            raise Unavailable("the registry is away", retry_after=1)
        if self.refusal:
            raise PublicationRefused(self.refusal)
        if job.id not in self.versions:
            self.artifacts.append(job.artifact)
            self.versions[job.id] = f"models/{job.model}/versions/{len(self.artifacts)}"
        if self.away_after:
            raise Unavailable("the answer was lost", retry_after=1)
        return self.versions[job.id]


class JobDesk:
    """Submit, claim, report, finish, cancel, watch, as the servicers do."""

    def __init__(
        self,
        database: Database,
        publisher: MemoryPublisher | None = None,
        *,
        queues: Queues = Queues(("cpu", "gpu")),  # noqa: B008 - frozen
        bounds: Bounds = Bounds(),  # noqa: B008 - frozen
    ) -> None:
        self.database = database
        self.clock = 1000.0
        """The process's clock in seconds; the database has its own."""
        self.notices = Notices()
        self.doorbells: list[Doorbell] = []
        """Those that this process is to ring."""
        self.planner = FixedPlanner()
        self.publisher = publisher or MemoryPublisher()
        self.ledger = Ledger(
            database,
            on_events=self.notices.announce,
            on_doorbell=self.doorbells.append,
            keep_last_checkpoint_s=KEEP_LAST_CHECKPOINT_S,
        )
        self.retries = Retries(infrastructure_retries=MAX_ATTEMPTS - 1, delay_s=RETRY_DELAY_S)
        self.leases = Leases(self.ledger, self.retries, lease_s=LEASE_S, clock=lambda: self.clock)
        self.submissions = Submissions(self.ledger, self.planner, bounds)
        self.queues = queues
        self.bounds = bounds
        self.tenants = Tenants(database, bounds, on_doorbell=self.doorbells.append)
        self.workers = Workers(database, report_interval_s=10.0)
        self.claims = Claims(self.ledger, self.leases, queues, bounds, self.workers)
        self.explanations = Explanations(self.ledger, self.workers, queues, bounds, remaining_s)
        self.expiry = Expiry(self.ledger)
        self.reports = Reports(self.ledger, lease_us=self.leases.duration_us)
        self.finishing = Finishing(self.ledger, self.publisher, self.retries, lease_us=self.leases.duration_us)
        self.cancellation = Cancellation(self.ledger)
        self.pausing = Pausing(self.ledger)
        self.watch = Watch(self.ledger, self.notices)
        self.leases.end_grace()

    async def submit(self, request_id: str = "", *, tenant: str = "default", **content: Any) -> Job:
        """A new job."""
        return await self.submissions.submit(submission(request_id, **content), caller(tenant=tenant))

    async def ask(self, job: Job, worker: str = "host/1") -> Claim | None:
        """What a worker does after a doorbell for this job."""
        return await self.claims.claim(job.id, Asker(worker, worker.partition("/")[0]))

    async def claim(self, job: Job, worker: str = "host/1") -> Claim:
        """A claim that must succeed, as soon as the job may be tried again."""
        claim = await self.ask(job, worker)
        if claim is None:
            await self.end_wait(job)
            claim = await self.ask(job, worker)
        assert claim is not None
        return claim

    async def claimed(self) -> Job:
        """A new job, held by its first attempt."""
        return (await self.claim(await self.submit())).job

    async def report(self, job_id: str, attempt: int, first_update: int, updates: Sequence[Update]) -> Receipt:
        """What a worker does that has checkpoints among its updates: announces them, then reports."""
        for checkpoint in (each for each in updates if isinstance(each, Saved)):
            await self.reports.announce(job_id, attempt, checkpoint)
        return await self.reports.report(job_id, attempt, first_update, updates)

    async def cancel(self, job: Job, request_id: str = "") -> Job:
        """What a user of the job's tenant does."""
        return await self.cancellation.cancel(job.id, tenant="default", subject="tester", request_id=request_id)

    async def pause(self, job: Job, request_id: str = "") -> Job:
        """The same for a pause."""
        return await self.pausing.pause(job.id, tenant="default", subject="tester", request_id=request_id)

    async def resume(self, job: Job, request_id: str = "") -> Job:
        """The same for the end of a pause."""
        return await self.pausing.resume(job.id, tenant="default", subject="tester", request_id=request_id)

    async def preempt(self, job: Job, request_id: str = "") -> Job:
        """The same for a preemption."""
        return await self.pausing.preempt(job.id, tenant="default", subject="tester", request_id=request_id)

    async def get(self, job: Job) -> Job:
        """The job as it is now."""
        return await self.ledger.get(job.id)

    async def expire_lease(self, job: Job) -> None:
        """Makes the job's lease one that ran out long ago."""
        await self._set(job, tables.jobs.c.lease_until.is_not(None), lease_until=1)

    async def end_wait(self, job: Job) -> None:
        """Makes the time at which the job may be tried again one that is over."""
        await self._set(job, tables.jobs.c.retry_time.is_not(None), retry_time=1)

    async def pass_time(self, job: Job, seconds: float) -> None:
        """Makes the current attempt one that was claimed so much earlier."""
        table, us = tables.jobs, round(seconds * 1e6)
        earlier = {"claim_time": table.c.claim_time - us, "run_until": table.c.run_until - us}
        await self._set(job, table.c.claim_time.is_not(None), **earlier)

    async def limit(self, job: Job, **limits: Any) -> None:
        """Makes the job one that was submitted with `max_run_time` (microseconds) or `max_retries`."""
        await self._set(job, true(), **limits)

    async def _set(self, job: Job, condition: ColumnElement[bool], **values: Any) -> None:
        async with self.database.write() as connection:
            table = tables.jobs
            await connection.execute(update(table).where(table.c.id == job.id, condition).values(**values))

    def outbox(self, bell: Bell) -> Outbox:
        """An outbox that has been given what this process is to ring."""
        outbox = Outbox(self.database, bell)
        while self.doorbells:
            outbox.add(self.doorbells.pop(0))
        return outbox

    async def history(self, job: Job) -> list[Event]:
        """All events of the job."""
        async with self.database.read() as connection:
            return await events.read_page(connection, job.id, 0, 1_000_000)
