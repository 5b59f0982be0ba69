"""The reaper: dead leases back to the queue, or the job to its end; never a living attempt, never one twice."""

from __future__ import annotations

import asyncio

import pytest

from modelyard.gateway.events import StateChange
from modelyard.gateway.jobs import FailureReason, Job, State
from modelyard.gateway.leases import Leases
from modelyard.gateway.retries import Retries
from support.job_desk import LEASE_S, MAX_ATTEMPTS, JobDesk


async def _lose(desk: JobDesk, job: Job, *, working: bool) -> None:
    """Claims the job and lets its worker die, before or after it has begun to work."""
    claim = await desk.claim(job)
    if working:
        await desk.reports.report(job.id, claim.job.attempt, 1, [State.PREPARING])
    await desk.expire_lease(job)
    assert await desk.leases.reap() == 1


async def test_a_dead_lease_puts_the_job_back_with_a_doorbell(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.expire_lease(job)
    desk.doorbells.clear()
    assert await desk.leases.reap() == 1
    job = await desk.get(job)
    assert (job.state, job.attempt, job.lease_until) == (State.QUEUED, 1, None)
    assert job.rung_time is not None
    assert [doorbell.job_id for doorbell in desk.doorbells] == [job.id]
    last = (await desk.history(job))[-1].payload
    assert last == StateChange(State.QUEUED, State.LEASED, message="the worker of attempt 1 stopped reporting")


async def test_a_living_lease_is_left_alone(desk: JobDesk) -> None:
    job = await desk.claimed()
    assert await desk.leases.reap() == 0
    assert await desk.get(job) == job


async def test_a_job_that_kills_every_worker_is_poison(desk: JobDesk) -> None:
    job = await desk.submit()
    for _ in range(MAX_ATTEMPTS):
        await _lose(desk, job, working=True)
    job = await desk.get(job)
    assert (job.state, job.failure_reason) == (State.FAILED, FailureReason.POISON)
    assert "3 attempts" in job.failure_message


@pytest.mark.parametrize("died_working", [(False, True, True), (True, True, False), (False, False, False)])
async def test_a_worker_lost_before_the_work_is_not_the_jobs_fault(
    desk: JobDesk, died_working: tuple[bool, ...]
) -> None:
    job = await desk.submit()
    for working in died_working:
        await _lose(desk, job, working=working)
    assert (await desk.get(job)).failure_reason is FailureReason.LOST_WORKER


async def test_one_lost_worker_is_no_poison(desk: JobDesk) -> None:
    retries = Retries(infrastructure_retries=0, delay_s=1)
    leases = Leases(desk.ledger, retries, lease_s=LEASE_S, clock=lambda: desk.clock)
    desk.clock += LEASE_S
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [State.RUNNING])
    await desk.expire_lease(job)
    await leases.reap()
    assert (await desk.get(job)).failure_reason is FailureReason.LOST_WORKER


async def test_a_cancelling_job_whose_worker_died_is_cancelled(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.cancel(job)
    await desk.expire_lease(job)
    await desk.leases.reap()
    assert (await desk.get(job)).state is State.CANCELLED


async def test_an_upload_that_died_is_tried_again(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [State.PUBLISHING])
    await desk.expire_lease(job)
    await desk.leases.reap()
    assert (await desk.get(job)).state is State.QUEUED


async def test_replicas_take_each_job_back_once(desk: JobDesk) -> None:
    jobs = [await desk.claimed() for _ in range(5)]
    for job in jobs:
        await desk.expire_lease(job)
    assert sum(await asyncio.gather(*(desk.leases.reap() for _ in range(4)))) == 5
    for job in jobs:
        assert (await desk.get(job)).last_sequence == 5


async def test_after_a_start_attempts_get_one_full_lease_to_report(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.expire_lease(job)
    desk.leases.give_grace()
    desk.clock += LEASE_S - 0.1
    assert await desk.leases.reap() == 0
    desk.clock += 0.2
    assert await desk.leases.reap() == 1


async def test_more_dead_leases_than_one_pass_takes_are_taken_in_the_next(desk: JobDesk) -> None:
    for _ in range(3):
        await desk.expire_lease(await desk.claimed())
    assert [await desk.leases.reap(limit=2) for _ in range(3)] == [2, 1, 0]
