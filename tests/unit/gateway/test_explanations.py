"""Why a job waits, what is ahead of it, and when it will start."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from modelyard.core.database import Database
from modelyard.core.errors import NotFound
from modelyard.gateway import tables
from modelyard.gateway.events import Document, Kind
from modelyard.gateway.explanations import Explanation
from modelyard.gateway.explanations import Kind as Why
from modelyard.gateway.jobs import FailureReason, Job, State
from modelyard.gateway.presence import Presence, WorkerState
from modelyard.gateway.scheduling import Queues
from modelyard.gateway.tenants import Bounds
from modelyard.v1.training_job_pb2 import TrainingProgress
from support.job_desk import JobDesk

SECOND = 1_000_000


async def _explain(desk: JobDesk, job: Job) -> Explanation:
    return await desk.explanations.explain(job.id, tenant=job.tenant)


def _kinds(explanation: Explanation) -> list[Why]:
    return [reason.kind for reason in explanation.reasons]


async def _change(desk: JobDesk, job: Job, **values: object) -> None:
    async with desk.database.write() as connection:
        await connection.execute(update(tables.jobs).where(tables.jobs.c.id == job.id).values(values))


async def _worker(desk: JobDesk, name: str, job: Job | None = None) -> None:
    state = WorkerState.BUSY if job else WorkerState.IDLE
    await desk.workers.report(Presence(name, name, ("cpu",), state, job.id if job else "", "cpu"))


async def _says_it_needs(desk: JobDesk, job: Job, seconds: int) -> None:
    progress = TrainingProgress(epoch=1)
    progress.remaining.seconds = seconds
    await desk.reports.report(job.id, job.attempt, 1, [Document(Kind.PROGRESS, progress.SerializeToString())])


async def _ended(desk: JobDesk, seconds: int) -> None:
    """A job of the queue that held a worker for so long."""
    job = await desk.claimed()
    await desk.finishing.fail(job.id, job.attempt, FailureReason.DATA, "")
    await _change(desk, job, state=State.SUCCEEDED, run_time=seconds * SECOND)


async def test_with_a_worker_free_it_is_about_to_start(desk: JobDesk) -> None:
    await _worker(desk, "a")
    explanation = await _explain(desk, await desk.submit())
    assert _kinds(explanation) == [Why.ABOUT_TO_START]
    assert explanation.start_time is not None
    assert explanation.job.queued_time is not None
    assert explanation.start_time - explanation.job.queued_time == explanation.waited_us


async def test_without_a_worker_nobody_knows_when(desk: JobDesk) -> None:
    await desk.submit(priority=1)
    explanation = await _explain(desk, await desk.submit())
    assert _kinds(explanation) == [Why.NO_WORKER, Why.JOBS_AHEAD]
    assert (explanation.ahead, explanation.tenant_ahead, explanation.start_time) == (1, 1, None)
    assert explanation.reasons[0].message == "no worker of the queue cpu has reported lately"


async def test_what_its_trainer_says_of_a_running_job_is_believed(desk: JobDesk) -> None:
    running = await desk.claimed()
    await _worker(desk, "a", running)
    await _says_it_needs(desk, running, 100)
    explanation = await _explain(desk, await desk.submit())
    assert _kinds(explanation) == [Why.WORKERS_BUSY]
    assert explanation.start_time is not None
    now = (explanation.job.queued_time or 0) + explanation.waited_us
    assert (explanation.start_time - now) / SECOND == pytest.approx(100, abs=5)


async def test_otherwise_the_queues_experience_counts(desk: JobDesk) -> None:
    for seconds in (40, 80):
        await _ended(desk, seconds)
    running = await desk.claimed()
    await _change(desk, running, claim_time=running.update_time - 20 * SECOND)
    await _worker(desk, "a", running)
    first, last = await desk.submit(priority=1), await desk.submit()
    starts = []
    for job in (first, last):
        explanation = await _explain(desk, job)
        assert explanation.start_time is not None
        starts.append((explanation.start_time - (explanation.job.queued_time or 0) - explanation.waited_us) / SECOND)
    assert starts == [pytest.approx(40, abs=5), pytest.approx(100, abs=5)]  # usually 60; 20 of the first have passed


async def test_without_experience_nothing_is_promised(desk: JobDesk) -> None:
    await _worker(desk, "a", await desk.claimed())
    assert (await _explain(desk, await desk.submit())).start_time is None


async def test_jobs_ahead_are_those_that_turns_let_go_first(desk: JobDesk) -> None:
    await _worker(desk, "a", await desk.claimed())
    for _ in range(20):
        await desk.submit(tenant="flood")
    await desk.submit(priority=1)
    explanation = await _explain(desk, await desk.submit())
    assert (explanation.ahead, explanation.tenant_ahead) == (3, 1)  # one of its own, and two of the flood in between
    assert explanation.reasons[0].message == "3 jobs go before it, 1 of them of its own tenant"


async def test_limits_are_told_with_their_figures(database: Database) -> None:
    desk = JobDesk(database, queues=Queues(("cpu",), {"cpu": 1}), bounds=Bounds(max_running_jobs=1))
    for name in ("a", "b"):
        await _worker(desk, name)
    running = await desk.claimed()
    await _says_it_needs(desk, running, 50)
    explanation = await _explain(desk, await desk.submit())
    assert [reason.message for reason in explanation.reasons] == [
        "the queue cpu runs 1 of at most 1 jobs",
        "the tenant default runs 1 of at most 1 jobs",
    ]
    assert explanation.start_time is not None
    now = (explanation.job.queued_time or 0) + explanation.waited_us
    assert (explanation.start_time - now) / SECOND == pytest.approx(50, abs=5)


async def test_a_job_that_is_tried_later_says_when(desk: JobDesk) -> None:
    await _worker(desk, "a")
    job = await desk.submit()
    await _change(desk, job, retry_time=(job.queued_time or 0) + 600 * SECOND)
    explanation = await _explain(desk, job)
    assert _kinds(explanation) == [Why.RETRY_LATER]
    assert explanation.start_time is not None
    assert explanation.start_time >= (job.queued_time or 0) + 599 * SECOND


async def test_a_job_that_does_not_wait_has_no_reasons(desk: JobDesk) -> None:
    job = await desk.claimed()
    assert await _explain(desk, job) == Explanation(job)


async def test_another_tenants_job_is_not_explained(desk: JobDesk) -> None:
    with pytest.raises(NotFound):
        await desk.explanations.explain((await desk.submit()).id, tenant="other")
