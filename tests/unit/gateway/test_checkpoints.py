"""Checkpoints: recorded behind the fence, only forward, kept over attempts; which blobs are still wanted."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from modelyard.core.errors import StaleAttempt
from modelyard.gateway.attempts import EndCause, list_attempts
from modelyard.gateway.checkpoints import Checkpoint
from modelyard.gateway.events import AttemptStart
from modelyard.gateway.jobs import FailureReason, Job, State
from modelyard.gateway.reports import Saved
from modelyard.gateway.tables import job_checkpoints
from support.job_desk import KEEP_LAST_CHECKPOINT_S, JobDesk, result, saved


async def _wanted(desk: JobDesk, job: Job) -> list[int]:
    """Steps of the job's checkpoints whose blobs are not to be removed."""
    query = select(job_checkpoints.c.step).where(
        job_checkpoints.c.job_id == job.id, job_checkpoints.c.remove_time.is_(None)
    )
    async with desk.database.read() as connection:
        return sorted((await connection.execute(query)).scalars())


async def _removal_times(desk: JobDesk, job: Job) -> dict[int, int | None]:
    """When each blob may be removed, by step."""
    query = select(job_checkpoints).where(job_checkpoints.c.job_id == job.id)
    async with desk.database.read() as connection:
        return {row.step: row.remove_time for row in await connection.execute(query)}


async def test_a_checkpoint_shows_on_the_job_and_in_its_history(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.report(job.id, 1, 1, [State.RUNNING, Saved(2, 200, "a" * 64, 12_345)])
    job = await desk.get(job)
    checkpoint = Checkpoint(
        attempt=1, epoch=2, step=200, digest="a" * 64, size_bytes=12_345, create_time=job.update_time
    )
    assert (job.checkpoint, job.checkpoint_step) == (checkpoint, 200)
    assert (await desk.history(job))[-1].payload == checkpoint


async def test_the_next_attempt_goes_on_from_it(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.report(job.id, 1, 1, [saved(200)])
    await desk.expire_lease(job)
    claim = await desk.claim(job)
    assert claim.job.checkpoint is not None
    assert (claim.job.checkpoint.step, claim.job.checkpoint.attempt) == (200, 1)
    assert (await desk.history(job))[-1].payload == AttemptStart("host/1", claim.job.checkpoint)
    (second, first), _ = await list_attempts(desk.database, job.id, page_size=10)
    assert (first.resumed_step, second.resumed_step) == (0, 200)


async def test_a_checkpoint_that_is_behind_the_recorded_one_is_not_taken(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.report(job.id, 1, 1, [saved(200), saved(100)])
    job = await desk.get(job)
    assert job.checkpoint_step == 200
    assert [event.payload.step for event in await desk.history(job) if isinstance(event.payload, Checkpoint)] == [200]
    assert await _wanted(desk, job) == [200]  # and its blob goes


async def test_a_checkpoint_of_the_same_step_is_taken(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.report(job.id, 1, 1, [saved(200, "a"), saved(200, "b")])
    job = await desk.get(job)
    assert job.checkpoint is not None
    assert job.checkpoint.digest == "b" * 64


async def test_a_stale_attempts_checkpoint_is_refused(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.expire_lease(job)
    current = (await desk.claim(job, "host/2")).job
    with pytest.raises(StaleAttempt):
        await desk.report(job.id, 1, 1, [saved(900)])
    assert await desk.get(job) == current
    assert await _wanted(desk, job) == []


async def test_a_report_sent_twice_records_its_checkpoint_once(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.report(job.id, 1, 1, [saved(100)])
    await desk.reports.report(job.id, 1, 1, [saved(100)])
    assert await _wanted(desk, job) == [100]


async def test_the_newest_two_stay(desk: JobDesk) -> None:
    job = await desk.claimed()
    for i, step in enumerate((100, 200, 300, 400)):
        await desk.report(job.id, 1, i + 1, [saved(step)])
    assert await _wanted(desk, job) == [300, 400]
    times = await _removal_times(desk, job)
    assert times[100] is not None
    assert times[100] <= (await desk.get(job)).update_time


async def test_the_same_content_saved_again_is_one_checkpoint(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.report(job.id, 1, 1, [saved(100), saved(200)])
    await desk.expire_lease(job)
    await desk.claim(job)
    await desk.report(job.id, 2, 1, [saved(200)])  # a resumed run is bit-exact
    assert await _wanted(desk, job) == [100, 200]


async def test_a_pause_keeps_them(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.report(job.id, 1, 1, [saved(100), saved(200)])
    await desk.pause(job)
    await desk.finishing.release(job.id, 1, EndCause.PAUSED, "")
    assert await _wanted(desk, job) == [100, 200]


async def test_a_success_needs_none_of_them(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.report(job.id, 1, 1, [saved(100), saved(200)])
    job = await desk.finishing.succeed(job.id, 1, result())
    assert await _removal_times(desk, job) == {100: job.finish_time, 200: job.finish_time}


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_the_last_one_of_a_job_that_did_not_succeed_stays_a_while(desk: JobDesk, is_cancelled: bool) -> None:
    job = await desk.claimed()
    await desk.report(job.id, 1, 1, [saved(100), saved(200)])
    if is_cancelled:
        await desk.cancel(job)
        job = await desk.finishing.cancel(job.id, 1)
    else:
        job = await desk.finishing.fail(job.id, 1, FailureReason.USER_CODE, "bad")
    assert job.finish_time is not None
    later = job.finish_time + round(KEEP_LAST_CHECKPOINT_S * 1e6)
    assert await _removal_times(desk, job) == {100: job.finish_time, 200: later}
    assert job.checkpoint is not None


async def test_a_job_without_checkpoints_ends_without_any(desk: JobDesk) -> None:
    job = await desk.claimed()
    job = await desk.finishing.succeed(job.id, 1, result())
    assert (job.checkpoint, await _removal_times(desk, job)) == (None, {})
