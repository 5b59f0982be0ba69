"""Why a job waits, what is ahead of it, and when it will probably start."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique

from sqlalchemy import bindparam, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import now_us

from .foresight import Line, Outlook, Scene, foresee
from .jobs import Job, State
from .ledger import Ledger
from .presence import Worker, Workers, WorkerState
from .scheduling import Queues
from .standings import READY, Standing, read_ready, read_standing
from .tables import jobs
from .tenants import Bounds
from .turns import Candidate

_EXPERIENCE = 20
"""The queue's newest successes whose run times count."""
_OVERDUE_PART = 0.1
"""A job that has run longer than usual is taken to need this part of the usual time still."""


@unique
class Kind(StrEnum):
    """What can keep a job from starting; the names are those of `WaitReason.Kind`."""

    JOBS_AHEAD = "JOBS_AHEAD"
    WORKERS_BUSY = "WORKERS_BUSY"
    NO_WORKER = "NO_WORKER"
    TENANT_LIMIT = "TENANT_LIMIT"
    QUEUE_LIMIT = "QUEUE_LIMIT"
    RETRY_LATER = "RETRY_LATER"
    NODES_EXCLUDED = "NODES_EXCLUDED"
    PAUSED = "PAUSED"
    ABOUT_TO_START = "ABOUT_TO_START"


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that keeps a job from starting."""

    kind: Kind
    message: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job is where it is."""

    job: Job
    reasons: Sequence[Reason] = ()
    ahead: int = 0
    tenant_ahead: int = 0
    start_time: int | None = None
    """When it will probably start, in microseconds since 1970; None if that cannot be known."""
    waited_us: int = 0


Remaining = Callable[[bytes], float | None]
"""Reads from a job's progress how many seconds it still needs; None if it does not say."""


@dataclass(frozen=True, slots=True)
class _Running:
    """A job of the queue that a worker holds."""

    tenant: str
    progress: bytes | None
    update_time: int
    claim_time: int | None


@dataclass(frozen=True, slots=True)
class _View:
    """All that an explanation is made of, of one moment."""

    job: Job
    now: int
    standing: Standing
    ready: Mapping[str, int]
    place: int
    """Jobs of its tenant that go before it."""
    running: Sequence[_Running]
    usual_s: float | None
    """How long jobs of the queue took lately."""
    workers: Sequence[Worker]
    """Those that serve the queue."""

    @property
    def idle(self) -> int:
        """Workers without a job."""
        return sum(worker.presence.state is WorkerState.IDLE for worker in self.workers)

    @property
    def idle_excluded(self) -> int:
        """Of these, those on nodes that keep failing."""
        return sum(
            worker.presence.state is WorkerState.IDLE and worker.excluded_until is not None for worker in self.workers
        )

    @property
    def excluded(self) -> int:
        """Workers on nodes that keep failing."""
        return sum(worker.excluded_until is not None for worker in self.workers)

    @property
    def tenant_running(self) -> int:
        """Jobs of its tenant that run, in all queues."""
        return self.standing.held.by_tenant[self.job.tenant]

    @property
    def queue_running(self) -> int:
        """Jobs of all tenants that run in its queue."""
        return self.standing.held.by_queue[self.job.queue]

    @property
    def retry_in_us(self) -> int:
        """How long it is until the job is tried again; 0 if it waits for nothing like that."""
        return max(0, (self.job.retry_time or 0) - self.now)


class Explanations:
    """Explains jobs."""

    def __init__(
        self, ledger: Ledger, workers: Workers, queues: Queues, defaults: Bounds, remaining: Remaining
    ) -> None:
        """`defaults`: of tenants without bounds of their own."""
        self._ledger = ledger
        self._workers = workers
        self._queues = queues
        self._defaults = defaults
        self._remaining = remaining

    async def explain(self, job_id: str, *, tenant: str | None) -> Explanation:
        """Why the job is where it is. Raises NotFound if there is none, or none in `tenant` (None: any)."""
        job = await self._ledger.get(job_id, tenant=tenant)
        if job.state is State.PAUSED:
            return Explanation(
                job, [Reason(Kind.PAUSED, "it is paused; ResumeTrainingJob puts it back into its queue")]
            )
        if job.state is not State.QUEUED:
            return Explanation(job)
        async with self._ledger.database.read() as connection:
            view = await self._look(connection, job)
        if job.tenant not in view.standing.waiting:
            return await self.explain(job_id, tenant=tenant)  # a worker has taken it in between
        scene = self._scene(view)
        # A long queue takes a moment to play through: not in the event loop.
        outlook = await asyncio.to_thread(foresee, scene, job.tenant, view.place)
        return Explanation(
            job,
            self._reasons(view, outlook),
            outlook.ahead,
            outlook.tenant_ahead,
            self._start_time(view, outlook),
            max(0, view.now - (job.queued_time or view.now)),
        )

    async def _look(self, connection: AsyncConnection, job: Job) -> _View:
        of_queue = {"of_queue": job.queue}
        mine = of_queue | {
            "of_tenant": job.tenant, "of_precedence": job.precedence, "of_place": job.place_time, "of_job": job.id,
        }  # fmt: skip
        place, now = (await connection.execute(_PLACE, mine)).one()
        times = (await connection.execute(_RUN_TIMES, of_queue)).scalars().all()
        workers = [worker for worker in await self._workers.read(connection) if worker.serves(job.queue)]
        return _View(
            job=job,
            now=now,
            standing=await read_standing(connection, job.queue, self._defaults),
            ready=await read_ready(connection, job.queue),
            place=place,
            running=[_Running(*row) for row in await connection.execute(_RUNNING, of_queue)],
            usual_s=sum(times) / len(times) / 1e6 if times else None,
            workers=workers,
        )

    def _scene(self, view: _View) -> Scene:
        standing, held = view.standing, view.standing.held
        lines = []
        for tenant, waiting in standing.waiting.items():
            candidate = Candidate(tenant, waiting.bounds.weight, held.by_both[standing.queue, tenant], waiting.tag)
            limit = waiting.bounds.max_running_jobs
            count = max(view.ready.get(tenant, 0), view.place + 1 if tenant == view.job.tenant else 0)
            lines.append(Line(candidate, count, limit - held.by_tenant[tenant] if limit else None))
        room = self._queues.room(standing.queue, view.queue_running, len(view.workers))
        free = min(room, view.idle) if view.workers or view.running else 1  # with nobody there, the order is all
        ends = [(max(0.0, self._remaining_s(row, view)), row.tenant) for row in view.running]
        return Scene(lines, standing.tag, ends, free, math.inf if view.usual_s is None else view.usual_s)

    def _remaining_s(self, row: _Running, view: _View) -> float:
        """How long a running job will need still: what its trainer says, or else what jobs usually need."""
        said = self._remaining(row.progress) if row.progress is not None else None
        if said is not None:
            return said - (view.now - row.update_time) / 1e6
        if view.usual_s is None:
            return math.inf  # nobody can tell
        elapsed = (view.now - row.claim_time) / 1e6 if row.claim_time is not None else 0.0
        return max(view.usual_s - elapsed, view.usual_s * _OVERDUE_PART)

    def _start_time(self, view: _View, outlook: Outlook) -> int | None:
        if outlook.starts_in_s is None or math.isinf(outlook.starts_in_s) or not view.workers:
            return None
        return view.now + max(round(outlook.starts_in_s * 1e6), view.retry_in_us)

    def _reasons(self, view: _View, outlook: Outlook) -> list[Reason]:
        job, bounds = view.job, view.standing.waiting[view.job.tenant].bounds
        found = []
        if view.retry_in_us:
            found.append(Reason(Kind.RETRY_LATER, f"it is tried again in {view.retry_in_us / 1e6:.0f} s"))
        if not view.workers:
            found.append(Reason(Kind.NO_WORKER, f"no worker of the queue {job.queue} has reported lately"))
        if not self._queues.room(job.queue, view.queue_running):
            limit = self._queues.max_running[job.queue]
            found.append(
                Reason(Kind.QUEUE_LIMIT, f"the queue {job.queue} runs {view.queue_running} of at most {limit} jobs")
            )
        if not bounds.room(view.tenant_running):
            limit = bounds.max_running_jobs
            found.append(
                Reason(Kind.TENANT_LIMIT, f"the tenant {job.tenant} runs {view.tenant_running} of at most {limit} jobs")
            )
        if outlook.ahead and outlook.starts_in_s != 0:
            own = f", {outlook.tenant_ahead} of them of its own tenant"
            found.append(Reason(Kind.JOBS_AHEAD, f"{outlook.ahead} jobs go before it{own}"))
        if view.idle and view.idle == view.idle_excluded and len(view.workers) > view.excluded:
            found.append(Reason(Kind.NODES_EXCLUDED, f"the {view.idle} idle workers are on nodes that keep failing"))
        if view.workers and not view.idle:
            found.append(
                Reason(Kind.WORKERS_BUSY, f"all {len(view.workers)} workers of the queue {job.queue} are busy")
            )
        return found or [Reason(Kind.ABOUT_TO_START, "nothing is in the way; a worker is about to hear of it")]


_PLACE = select(func.count(), now_us()).where(
    jobs.c.queue == bindparam("of_queue"),
    jobs.c.tenant == bindparam("of_tenant"),
    READY,
    tuple_(jobs.c.precedence, jobs.c.place_time, jobs.c.id)
    < tuple_(bindparam("of_precedence"), bindparam("of_place"), bindparam("of_job")),
)
_RUN_TIMES = (
    select(jobs.c.run_time)
    .where(jobs.c.queue == bindparam("of_queue"), jobs.c.state == State.SUCCEEDED, jobs.c.run_time > 0)
    .order_by(jobs.c.finish_time.desc())
    .limit(_EXPERIENCE)
)
_RUNNING = select(jobs.c.tenant, jobs.c.progress, jobs.c.update_time, jobs.c.claim_time).where(
    jobs.c.queue == bindparam("of_queue"), jobs.c.lease_until.is_not(None)
)
