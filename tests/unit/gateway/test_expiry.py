"""Jobs that waited longer than they may."""

from __future__ import annotations

from sqlalchemy import update

from modelyard.gateway import tables
from modelyard.gateway.jobs import FailureReason, Job, State
from support.job_desk import JobDesk

MINUTE = 60_000_000


async def _wait_long(desk: JobDesk, job: Job) -> None:
    table = tables.jobs
    async with desk.database.write() as connection:
        await connection.execute(
            update(table).where(table.c.id == job.id, table.c.expire_time.is_not(None)).values(expire_time=1)
        )


async def test_it_fails_with_its_reason(desk: JobDesk) -> None:
    patient, hasty = await desk.submit(), await desk.submit(max_queue_time=MINUTE)
    await _wait_long(desk, hasty)
    await desk.expiry.expire()
    ended = await desk.get(hasty)
    assert (ended.state, ended.failure_reason) == (State.FAILED, FailureReason.QUEUE_EXPIRED)
    assert ended.failure_message == "the job waited longer than its max_queue_time of 60 s"
    assert (await desk.get(patient)).state is State.QUEUED


async def test_one_that_waits_still_or_runs_is_left_alone(desk: JobDesk) -> None:
    held = (await desk.claim(await desk.submit(max_queue_time=MINUTE))).job
    waiting = await desk.submit(max_queue_time=MINUTE)
    await _wait_long(desk, held)
    await desk.expiry.expire()
    assert (await desk.get(held)).state is State.LEASED
    assert (await desk.get(waiting)).state is State.QUEUED


async def test_a_job_that_is_queued_again_may_wait_as_long_again(desk: JobDesk) -> None:
    held = (await desk.claim(await desk.submit(max_queue_time=MINUTE))).job
    await desk.expire_lease(held)
    await desk.leases.reap()
    queued = await desk.get(held)
    assert (queued.expire_time or 0) - queued.update_time == MINUTE


async def test_many_are_ended_batch_by_batch(desk: JobDesk) -> None:
    for _ in range(3):
        await _wait_long(desk, await desk.submit(max_queue_time=MINUTE))
    assert [await desk.expiry.expire(limit=2) for _ in range(3)] == [True, False, False]
