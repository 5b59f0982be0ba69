"""Retries: what becomes of a job whose attempt ended without a result, by the kind of the cause."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from modelyard.core.database import now_us
from modelyard.core.errors import StaleAttempt, WrongState
from modelyard.gateway.attempts import PREEMPTION, EndCause
from modelyard.gateway.jobs import FailureReason, Job, State
from modelyard.gateway.retries import OWN_FAULTS
from modelyard.gateway.tables import doorbells
from support.job_desk import MAX_ATTEMPTS, RETRY_DELAY_S, JobDesk, result
from support.memory_bell import MemoryBell

MAX_RETRIES = MAX_ATTEMPTS - 1


async def _lose(desk: JobDesk, job: Job) -> Job:
    """Claims the job and lets its worker die while it works on it."""
    claim = await desk.claim(job)
    await desk.reports.report(job.id, claim.job.attempt, 1, [State.RUNNING])
    await desk.expire_lease(job)
    await desk.leases.reap()
    return await desk.get(job)


def _delay_s(job: Job) -> float:
    """How long the job waits to be tried again."""
    return 0.0 if job.retry_time is None else (job.retry_time - job.update_time) / 1e6


async def test_a_lost_job_is_tried_again_at_once_then_later_and_later(desk: JobDesk) -> None:
    job = await desk.submit()
    delays = [_delay_s(await _lose(desk, job)) for _ in range(MAX_RETRIES)]
    assert delays == [0.0, RETRY_DELAY_S]
    job = await _lose(desk, job)
    assert (job.state, job.infrastructure_retries) == (State.FAILED, MAX_ATTEMPTS)


async def test_before_its_time_a_job_is_not_given_away(desk: JobDesk) -> None:
    job = await desk.submit()
    for _ in range(2):
        job = await _lose(desk, job)
    assert await desk.ask(job) is None
    await desk.end_wait(job)
    claim = await desk.ask(job)
    assert claim is not None
    assert claim.job.retry_time is None


async def test_somebody_rings_when_the_time_has_come(desk: JobDesk) -> None:
    job = await desk.submit()
    for _ in range(2):
        desk.doorbells.clear()
        job = await _lose(desk, job)
    assert desk.doorbells == []  # nobody holds it in memory: whoever is there then rings
    async with desk.database.read() as connection:
        due = (await connection.execute(select(doorbells.c.due_time).order_by(doorbells.c.id.desc()))).scalars().first()
        now = (await connection.execute(select(now_us()))).scalar_one()
    assert due is not None
    assert due == job.retry_time == job.rung_time
    assert due > now


async def test_a_job_that_waits_to_be_tried_again_is_not_taken_for_forgotten(desk: JobDesk) -> None:
    job = await desk.submit()
    for _ in range(2):
        job = await _lose(desk, job)
    assert job.rung_time is not None
    assert job.rung_time > job.update_time


@pytest.mark.parametrize("cause", sorted(PREEMPTION - {EndCause.PAUSED}))
async def test_a_place_that_was_wanted_uses_up_nothing(desk: JobDesk, cause: EndCause) -> None:
    job = await desk.submit()
    for attempt in range(1, 4 * MAX_ATTEMPTS):
        await desk.claim(job)
        desk.doorbells.clear()
        job = await desk.finishing.release(job.id, attempt, cause, "the node is drained")
        assert (job.state, job.retry_time, job.preemptions) == (State.QUEUED, None, attempt)
        assert [doorbell.job_id for doorbell in desk.doorbells] == [job.id]
    assert (job.infrastructure_retries, job.user_retries) == (0, 0)


@pytest.mark.parametrize("reason", sorted(OWN_FAULTS))
async def test_the_jobs_own_faults_are_not_tried_again_by_default(desk: JobDesk, reason: FailureReason) -> None:
    job = await desk.claimed()
    job = await desk.finishing.fail(job.id, 1, reason, "bad")
    assert (job.state, job.failure_reason, job.user_retries) == (State.FAILED, reason, 0)


@pytest.mark.parametrize("reason", sorted(OWN_FAULTS))
async def test_they_are_tried_again_as_often_as_the_user_asked(desk: JobDesk, reason: FailureReason) -> None:
    job = await desk.submit()
    await desk.limit(job, max_retries=2)
    delays = []
    for attempt in (1, 2):
        await desk.claim(job)
        job = await desk.finishing.fail(job.id, attempt, reason, "bad")
        assert (job.state, job.user_retries, job.failure_reason) == (State.QUEUED, attempt, None)
        delays.append(_delay_s(job))
    assert delays == [RETRY_DELAY_S, 2 * RETRY_DELAY_S]
    await desk.claim(job)
    job = await desk.finishing.fail(job.id, 3, reason, "bad")
    assert (job.state, job.failure_reason, job.user_retries) == (State.FAILED, reason, 2)


@pytest.mark.parametrize("reason", [FailureReason.GATE_REJECTED, FailureReason.PARITY_FAILED, FailureReason.DEADLINE])
async def test_what_would_only_come_again_is_not_tried_again(desk: JobDesk, reason: FailureReason) -> None:
    job = await desk.submit()
    await desk.limit(job, max_retries=5)
    await desk.claim(job)
    assert (await desk.finishing.fail(job.id, 1, reason, "no")).state is State.FAILED


async def test_lost_workers_do_not_use_up_the_users_retries(desk: JobDesk) -> None:
    job = await desk.submit()
    await desk.limit(job, max_retries=1)
    await _lose(desk, job)
    await desk.claim(job)
    job = await desk.finishing.fail(job.id, 2, FailureReason.USER_CODE, "bad")
    assert (job.state, job.infrastructure_retries, job.user_retries) == (State.QUEUED, 1, 1)


async def test_an_internal_failure_is_the_platforms(desk: JobDesk) -> None:
    job = await desk.submit()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        await desk.claim(job)
        job = await desk.finishing.fail(job.id, attempt, FailureReason.INTERNAL, "the disk is full")
    assert (job.state, job.failure_reason) == (State.FAILED, FailureReason.INTERNAL)
    assert job.failure_message == f"the disk is full (after {MAX_RETRIES} retries)"


async def test_a_fault_of_the_worker_is_the_platforms(desk: JobDesk) -> None:
    job = await desk.claimed()
    job = await desk.finishing.release(job.id, 1, EndCause.WORKER_FAULT, "the disk is full")
    assert (job.state, job.infrastructure_retries, job.suspect_attempts) == (State.QUEUED, 1, 0)


async def test_a_job_that_was_preempted_once_is_no_poison(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.finishing.release(job.id, 1, EndCause.WORKER_STOPPED, "draining")
    for _ in range(MAX_ATTEMPTS):
        job = await _lose(desk, job)
    assert (job.state, job.failure_reason) == (State.FAILED, FailureReason.LOST_WORKER)


async def test_the_wait_has_an_upper_bound(desk: JobDesk) -> None:
    job = await desk.submit()
    await desk.limit(job, max_retries=1000, user_retries=50)
    await desk.claim(job)
    job = await desk.finishing.fail(job.id, 1, FailureReason.USER_CODE, "bad")
    assert _delay_s(job) == 300


async def test_a_repeated_release_answers_the_job_also_when_the_next_attempt_runs(desk: JobDesk) -> None:
    job = await desk.claimed()
    job = await desk.finishing.release(job.id, 1, EndCause.WORKER_STOPPED, "draining")
    assert await desk.finishing.release(job.id, 1, EndCause.WORKER_STOPPED, "draining") == job
    current = (await desk.claim(job, "host/2")).job
    assert await desk.finishing.release(job.id, 1, EndCause.WORKER_STOPPED, "draining") == current
    assert await desk.get(job) == current


async def test_a_stale_attempt_releases_nothing(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.expire_lease(job)
    current = (await desk.claim(job, "host/2")).job
    with pytest.raises(StaleAttempt):
        await desk.finishing.release(job.id, 1, EndCause.WORKER_STOPPED, "draining")
    assert await desk.get(job) == current


async def test_an_attempt_that_was_given_back_has_no_result(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.finishing.release(job.id, 1, EndCause.WORKER_STOPPED, "draining")
    with pytest.raises(StaleAttempt):
        await desk.finishing.succeed(job.id, 1, result())
    assert not desk.publisher.artifacts


async def test_a_job_whose_result_is_recorded_is_not_given_back(desk: JobDesk) -> None:
    job = await desk.claimed()
    desk.publisher.away_before = True
    with pytest.raises(Exception, match="registry is away"):
        await desk.finishing.succeed(job.id, 1, result())
    with pytest.raises(WrongState):
        await desk.finishing.release(job.id, 1, EndCause.WORKER_STOPPED, "draining")


async def test_a_job_that_is_tried_later_rings_through_the_outbox(desk: JobDesk) -> None:
    job = await desk.submit()
    for _ in range(2):
        job = await _lose(desk, job)
    bell = MemoryBell()
    outbox = desk.outbox(bell)
    while await outbox.relay():
        pass
    await outbox.settle()
    rung = len(bell.rung)
    assert not await outbox.relay_left()
    assert len(bell.rung) == rung  # not yet
    async with desk.database.write() as connection:
        await connection.execute(doorbells.update().values(due_time=1))
    await outbox.relay_left()
    assert bell.rung[rung:] == [job.name]
