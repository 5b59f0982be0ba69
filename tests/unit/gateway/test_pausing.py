"""Pause, resume and preempt: who wins over whom, what the worker hears, and where the job is then."""

from __future__ import annotations

import asyncio

import pytest

from modelyard.core.errors import NotFound, Unavailable, WrongState
from modelyard.gateway.attempts import EndCause
from modelyard.gateway.events import AttemptEnd, StateChange
from modelyard.gateway.jobs import FailureReason, Job, State
from modelyard.gateway.reports import Directive
from support.job_desk import MAX_ATTEMPTS, JobDesk, result


async def _heard(desk: JobDesk, job: Job) -> Directive:
    """What the worker of the current attempt is told at its next report."""
    attempt = (await desk.get(job)).attempt
    return (await desk.reports.report(job.id, attempt, 1, [])).directive


async def _running(desk: JobDesk) -> Job:
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [State.RUNNING])
    return await desk.get(job)


async def _paused(desk: JobDesk) -> Job:
    """A job whose worker has given it back for a pause."""
    job = await _running(desk)
    await desk.pause(job)
    return await desk.finishing.release(job.id, 1, EndCause.PAUSED, "saved step 12")


async def test_a_queued_job_is_paused_at_once_and_not_given_away(desk: JobDesk) -> None:
    job = await desk.pause(await desk.submit())
    assert (job.state, job.rung_time, job.lease_until) == (State.PAUSED, None, None)
    assert await desk.ask(job) is None
    assert (await desk.history(job))[-1].payload == StateChange(State.PAUSED, State.QUEUED, message="paused by tester")


async def test_a_running_job_is_paused_when_its_worker_has_given_it_back(desk: JobDesk) -> None:
    job = await _running(desk)
    assert (await desk.pause(job)).state is State.PAUSING
    assert await _heard(desk, job) is Directive.PAUSE
    job = await desk.finishing.release(job.id, 1, EndCause.PAUSED, "saved step 12")
    assert (job.state, job.lease_until, job.preemptions) == (State.PAUSED, None, 1)
    told = [event.payload for event in await desk.history(job)][-2:]
    assert told == [
        AttemptEnd(EndCause.PAUSED, "saved step 12", retried=True),
        StateChange(State.PAUSED, State.PAUSING, message="saved step 12"),
    ]
    assert await desk.leases.reap() == 0


async def test_what_a_worker_enters_while_it_stops_does_not_show(desk: JobDesk) -> None:
    job = await _running(desk)
    await desk.pause(job)
    await desk.reports.report(job.id, 1, 2, [State.EVALUATING])
    assert (await desk.get(job)).state is State.PAUSING


async def test_a_resumed_job_waits_with_a_doorbell_and_goes_on(desk: JobDesk) -> None:
    job = await _paused(desk)
    desk.doorbells.clear()
    job = await desk.resume(job)
    assert job.state is State.QUEUED
    assert [doorbell.job_id for doorbell in desk.doorbells] == [job.id]
    assert (await desk.claim(job)).job.attempt == 2


async def test_pauses_and_resumes_that_change_nothing_answer_the_job(desk: JobDesk) -> None:
    queued = await desk.submit()
    assert await desk.resume(queued) == queued
    running = await _running(desk)
    assert await desk.resume(running) == running
    pausing = await desk.pause(running)
    assert await desk.pause(running) == pausing
    paused = await desk.finishing.release(running.id, 1, EndCause.PAUSED, "")
    assert await desk.pause(running) == paused


async def test_a_request_that_comes_late_once_more_does_nothing(desk: JobDesk) -> None:
    job = await desk.submit()
    await desk.pause(job, "p")
    resumed = await desk.resume(job, "r")
    assert await desk.pause(job, "p") == resumed
    paused = await desk.pause(job, "p2")
    assert paused.state is State.PAUSED
    assert await desk.resume(job, "r") == paused


async def test_a_job_that_is_still_being_paused_is_not_resumed(desk: JobDesk) -> None:
    job = await _running(desk)
    await desk.pause(job)
    with pytest.raises(WrongState, match="still being paused"):
        await desk.resume(job)


async def test_cancel_wins_over_pause(desk: JobDesk) -> None:
    job = await _running(desk)
    await desk.pause(job)
    assert (await desk.cancel(job)).state is State.CANCELLING
    assert await _heard(desk, job) is Directive.CANCEL
    with pytest.raises(WrongState):
        await desk.pause(job)
    # The worker had heard of the pause first.
    job = await desk.finishing.release(job.id, 1, EndCause.PAUSED, "saved step 12")
    assert job.state is State.CANCELLED
    assert await desk.finishing.release(job.id, 1, EndCause.PAUSED, "saved step 12") == job


async def test_a_paused_job_is_cancelled_at_once(desk: JobDesk) -> None:
    job = await _paused(desk)
    job = await desk.cancel(job, "c")
    assert job.state is State.CANCELLED
    assert await desk.cancel(job, "c") == job
    with pytest.raises(WrongState):
        await desk.resume(job)


async def test_a_pause_after_the_result_is_refused(desk: JobDesk) -> None:
    job = await _running(desk)
    desk.publisher.away_before = True
    with pytest.raises(Unavailable):
        await desk.finishing.succeed(job.id, 1, result())
    for change in (desk.pause, desk.preempt):
        with pytest.raises(WrongState, match="being published"):
            await change(job)
    desk.publisher.away_before = False
    await desk.finishing.succeed(job.id, 1, result())
    for change in (desk.pause, desk.resume, desk.preempt):
        with pytest.raises(WrongState, match="SUCCEEDED"):
            await change(job)


async def test_a_result_is_worth_more_than_the_pause_that_came_first(desk: JobDesk) -> None:
    job = await _running(desk)
    await desk.pause(job)
    job = await desk.finishing.succeed(job.id, 1, result())
    assert job.state is State.SUCCEEDED


async def test_a_worker_that_dies_while_its_job_is_paused_leaves_it_paused(desk: JobDesk) -> None:
    job = await _running(desk)
    await desk.pause(job)
    await desk.expire_lease(job)
    desk.doorbells.clear()
    assert await desk.leases.reap() == 1
    job = await desk.get(job)
    assert (job.state, job.infrastructure_retries, desk.doorbells) == (State.PAUSED, 1, [])


async def test_a_job_without_retries_that_fails_while_it_is_paused_has_failed(desk: JobDesk) -> None:
    job = await _running(desk)
    await desk.pause(job)
    job = await desk.finishing.fail(job.id, 1, FailureReason.USER_CODE, "bad")
    assert (job.state, job.failure_reason) == (State.FAILED, FailureReason.USER_CODE)


async def test_a_pause_that_nobody_asked_for_is_refused(desk: JobDesk) -> None:
    job = await _running(desk)
    with pytest.raises(WrongState):
        await desk.finishing.release(job.id, 1, EndCause.PAUSED, "")
    assert await desk.get(job) == job


async def test_a_preempted_job_is_given_back_and_waits_again(desk: JobDesk) -> None:
    job = await _running(desk)
    await desk.preempt(job)
    assert await _heard(desk, job) is Directive.PREEMPT
    assert (await desk.get(job)).state is State.RUNNING
    desk.doorbells.clear()
    job = await desk.finishing.release(job.id, 1, EndCause.PREEMPTED, "saved step 12")
    assert (job.state, job.preemptions, len(desk.doorbells)) == (State.QUEUED, 1, 1)
    ends = [event.payload for event in await desk.history(job) if isinstance(event.payload, AttemptEnd)]
    assert ends == [AttemptEnd(EndCause.PREEMPTED, "preempted by tester", retried=True)]
    await desk.claim(job)
    assert await _heard(desk, job) is Directive.CONTINUE  # the wish was for the attempt before


async def test_a_preemption_asked_twice_is_one(desk: JobDesk) -> None:
    job = await _running(desk)
    asked = await desk.preempt(job, "x")
    assert await desk.preempt(job, "x") == asked == await desk.preempt(job)
    await desk.finishing.release(job.id, 1, EndCause.PREEMPTED, "")
    current = (await desk.claim(job)).job
    assert await desk.preempt(job, "x") == current
    assert await _heard(desk, job) is Directive.CONTINUE


async def test_only_a_job_that_a_worker_holds_is_preempted(desk: JobDesk) -> None:
    queued = await desk.submit()
    paused = await _paused(desk)
    pausing = await _running(desk)
    await desk.pause(pausing)
    cancelling = await _running(desk)
    await desk.cancel(cancelling)
    for job in (queued, paused, pausing, cancelling):
        with pytest.raises(WrongState):
            await desk.preempt(job)


async def test_a_preempted_job_that_is_paused_too_is_paused(desk: JobDesk) -> None:
    job = await _running(desk)
    await desk.preempt(job)
    await desk.pause(job)
    assert await _heard(desk, job) is Directive.PAUSE
    job = await desk.finishing.release(job.id, 1, EndCause.PREEMPTED, "the worker heard of that first")
    assert job.state is State.PAUSED


@pytest.mark.parametrize("change", ["pause", "resume", "preempt"])
async def test_another_tenants_job_is_not_found(desk: JobDesk, change: str) -> None:
    job = await desk.claimed()
    with pytest.raises(NotFound):
        await getattr(desk.pausing, change)(job.id, tenant="other", subject="somebody")
    assert await desk.get(job) == job


async def test_a_pause_and_a_claim_at_the_same_time_never_leave_a_paused_job_with_a_worker(desk: JobDesk) -> None:
    for _ in range(5):
        job = await desk.submit()
        claim, paused = await asyncio.gather(desk.ask(job), desk.pause(job))
        assert paused.state is (State.PAUSED if claim is None else State.PAUSING)
        assert ((await desk.get(job)).lease_until is not None) == (claim is not None)


async def test_a_pause_and_a_finish_at_the_same_time_agree_on_one_end(desk: JobDesk) -> None:
    for _ in range(3):
        job = await desk.claimed()
        finished, _paused = await asyncio.gather(
            desk.finishing.succeed(job.id, 1, result()), desk.pause(job), return_exceptions=True
        )
        assert isinstance(finished, Job)
        assert finished.state is State.SUCCEEDED
    assert len(desk.publisher.artifacts) == 3


async def test_a_job_over_its_time_to_run_is_told_to_stop_and_has_failed(desk: JobDesk) -> None:
    job = await desk.submit()
    await desk.limit(job, max_run_time=60_000_000)
    await desk.claim(job)
    assert await _heard(desk, job) is Directive.CONTINUE
    await desk.pass_time(job, 61)
    assert await _heard(desk, job) is Directive.DEADLINE
    job = await desk.finishing.fail(job.id, 1, FailureReason.DEADLINE, "stopped")
    assert (job.state, job.failure_reason) == (State.FAILED, FailureReason.DEADLINE)


async def test_the_time_to_run_is_that_of_all_attempts_in_sum(desk: JobDesk) -> None:
    job = await desk.submit()
    await desk.limit(job, max_run_time=60_000_000)
    await desk.claim(job)
    await desk.pass_time(job, 40)
    await desk.finishing.release(job.id, 1, EndCause.WORKER_STOPPED, "draining")
    await desk.claim(job)
    assert await _heard(desk, job) is Directive.CONTINUE
    await desk.pass_time(job, 21)
    assert await _heard(desk, job) is Directive.DEADLINE


@pytest.mark.parametrize("cause", [EndCause.WORKER_STOPPED, EndCause.PREEMPTED, EndCause.WORKER_FAULT])
async def test_a_job_without_time_left_is_not_tried_again(desk: JobDesk, cause: EndCause) -> None:
    job = await desk.submit()
    await desk.limit(job, max_run_time=60_000_000)
    await desk.claim(job)
    await desk.pass_time(job, 60)
    job = await desk.finishing.release(job.id, 1, cause, "")
    assert (job.state, job.failure_reason) == (State.FAILED, FailureReason.DEADLINE)
    assert job.failure_message == "its attempts have held workers for longer than the 60 s that it may run"


async def test_a_result_that_comes_late_but_before_the_reaper_counts(desk: JobDesk) -> None:
    job = await desk.submit()
    await desk.limit(job, max_run_time=60_000_000)
    await desk.claim(job)
    await desk.pass_time(job, 70)
    assert (await desk.finishing.succeed(job.id, 1, result())).state is State.SUCCEEDED


async def test_a_worker_that_does_not_stop_in_time_loses_the_job(desk: JobDesk) -> None:
    job = await desk.submit()
    await desk.limit(job, max_run_time=60_000_000)
    await desk.claim(job)
    await desk.pass_time(job, 70)
    assert await desk.leases.reap() == 0  # it has one lease's length to hear of it and stop
    await desk.pass_time(job, 40)
    await desk.reports.report(job.id, 1, 1, [])  # it is alive, and goes on all the same
    assert await desk.leases.reap() == 1
    job = await desk.get(job)
    assert (job.state, job.failure_reason) == (State.FAILED, FailureReason.DEADLINE)
    ends = [event.payload.cause for event in await desk.history(job) if isinstance(event.payload, AttemptEnd)]
    assert ends == [EndCause.DEADLINE]


async def test_a_cancelling_job_over_its_time_is_cancelled(desk: JobDesk) -> None:
    job = await desk.submit()
    await desk.limit(job, max_run_time=60_000_000)
    await desk.claim(job)
    await desk.cancel(job)
    await desk.pass_time(job, 200)
    assert await _heard(desk, job) is Directive.CANCEL
    assert await desk.leases.reap() == 1
    assert (await desk.get(job)).state is State.CANCELLED


async def test_pauses_may_be_many(desk: JobDesk) -> None:
    job = await desk.submit()
    for attempt in range(1, 3 * MAX_ATTEMPTS):
        await desk.claim(job)
        await desk.pause(job)
        await desk.finishing.release(job.id, attempt, EndCause.PAUSED, "")
        await desk.resume(job)
    assert (await desk.get(job)).state is State.QUEUED
