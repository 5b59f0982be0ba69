"""Cancelling: at once where nobody works, by request where somebody does."""

from __future__ import annotations

import pytest

from modelyard.core.errors import NotFound, Unavailable, WrongState
from modelyard.gateway.events import StateChange
from modelyard.gateway.jobs import FailureReason, State
from support.job_desk import JobDesk, result


async def test_a_queued_job_is_cancelled_at_once(desk: JobDesk) -> None:
    job = await desk.cancel(await desk.submit())
    assert job.state is State.CANCELLED
    assert job.rung_time is None
    assert (await desk.history(job))[-1].payload == StateChange(
        State.CANCELLED, State.QUEUED, message="cancelled by tester"
    )


async def test_a_held_job_is_cancelling_until_its_worker_has_stopped(desk: JobDesk) -> None:
    job = await desk.claimed()
    job = await desk.cancel(job)
    assert job.state is State.CANCELLING
    assert job.lease_until is not None
    assert await desk.cancel(job) == job  # asking again changes nothing


async def test_a_job_that_has_ended_cannot_be_cancelled(desk: JobDesk) -> None:
    failed = await desk.claimed()
    await desk.finishing.fail(failed.id, 1, FailureReason.DATA, "")
    cancelled = await desk.submit()
    await desk.cancel(cancelled)
    for job, state in ((failed, "FAILED"), (cancelled, "CANCELLED")):
        with pytest.raises(WrongState) as caught:
            await desk.cancel(job)
        assert caught.value.metadata == {"state": state}


async def test_a_repeated_request_answers_the_cancelled_job(desk: JobDesk) -> None:
    job = await desk.cancel(await desk.submit(), request_id="once")
    assert await desk.cancel(job, request_id="once") == job
    with pytest.raises(WrongState):
        await desk.cancel(job, request_id="another")


async def test_a_result_that_is_being_published_cannot_be_cancelled(desk: JobDesk) -> None:
    job = await desk.claimed()
    desk.publisher.away_after = True  # the version exists, and nobody here knows it yet
    with pytest.raises(Unavailable):
        await desk.finishing.succeed(job.id, 1, result())
    with pytest.raises(WrongState):
        await desk.cancel(job)
    desk.publisher.away_after = False
    assert (await desk.finishing.succeed(job.id, 1, result())).state is State.SUCCEEDED


async def test_an_upload_under_way_can_be_cancelled(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [State.PUBLISHING])
    assert (await desk.cancel(job)).state is State.CANCELLING


async def test_another_tenants_job_is_not_found(desk: JobDesk) -> None:
    job = await desk.submit()
    with pytest.raises(NotFound):
        await desk.cancellation.cancel(job.id, tenant="other", subject="eve")
    assert (await desk.get(job)).state is State.QUEUED
