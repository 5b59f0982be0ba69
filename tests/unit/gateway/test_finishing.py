"""Finishing: published at most once, safe to repeat at every point, whatever dies in between."""

from __future__ import annotations

import asyncio

import pytest

from modelyard.core.errors import StaleAttempt, Unavailable, WrongState
from modelyard.gateway.attempts import EndCause
from modelyard.gateway.events import AttemptEnd, Document, Kind, StateChange
from modelyard.gateway.jobs import FailureReason, Job, State
from support.job_desk import JobDesk, result

VERSION = "models/house-prices/versions/1"


async def _recorded(desk: JobDesk) -> Job:
    """A job whose result is recorded while the registry is away."""
    job = await desk.claimed()
    desk.publisher.away_before = True
    with pytest.raises(Unavailable):
        await desk.finishing.succeed(job.id, 1, result())
    desk.publisher.away_before = False
    return await desk.get(job)


async def test_a_success_is_published_and_the_job_succeeds(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [State.RUNNING, State.PUBLISHING])
    job = await desk.finishing.succeed(job.id, 1, result())
    assert (job.state, job.model_version, job.evaluation) == (State.SUCCEEDED, VERSION, b"evaluation")
    assert job == await desk.get(job)
    assert job.finish_time is not None
    assert job.lease_until is None
    payloads = [event.payload for event in await desk.history(job)]
    assert payloads[-3:] == [
        Document(Kind.EVALUATION, b"evaluation"),
        AttemptEnd(EndCause.SUCCEEDED),
        StateChange(State.SUCCEEDED, State.PUBLISHING, model_version=VERSION),
    ]
    assert desk.publisher.artifacts == [result().artifact]


async def test_publishing_is_told_even_if_the_worker_did_not(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.finishing.succeed(job.id, 1, result())
    states = [event.payload.state for event in await desk.history(job) if isinstance(event.payload, StateChange)]
    assert states == [State.QUEUED, State.LEASED, State.PUBLISHING, State.SUCCEEDED]


async def test_an_evaluation_that_was_reported_is_not_told_twice(desk: JobDesk) -> None:
    job = await desk.claimed()
    evaluation = Document(Kind.EVALUATION, b"evaluation")
    await desk.reports.report(job.id, 1, 1, [State.EVALUATING, evaluation])
    await desk.finishing.succeed(job.id, 1, result())
    assert [event.payload for event in await desk.history(job)].count(evaluation) == 1


async def test_a_repeated_success_answers_the_job(desk: JobDesk) -> None:
    job = await desk.claimed()
    first = await desk.finishing.succeed(job.id, 1, result())
    assert await desk.finishing.succeed(job.id, 1, result()) == first
    assert len(desk.publisher.artifacts) == 1


async def test_with_the_registry_away_the_result_is_kept_and_the_call_can_be_repeated(desk: JobDesk) -> None:
    job = await _recorded(desk)
    assert job.is_publishing
    job = await desk.finishing.succeed(job.id, 1, result())
    assert (job.state, job.model_version) == (State.SUCCEEDED, VERSION)


async def test_an_answer_lost_behind_the_registry_gives_the_same_version(desk: JobDesk) -> None:
    job = await desk.claimed()
    desk.publisher.away_after = True  # as if the gateway died between the registry's answer and its own commit
    with pytest.raises(Unavailable):
        await desk.finishing.succeed(job.id, 1, result())
    desk.publisher.away_after = False
    job = await desk.finishing.succeed(job.id, 1, result())
    assert (job.state, job.model_version) == (State.SUCCEEDED, VERSION)
    assert len(desk.publisher.artifacts) == 1


async def test_a_recorded_result_outlives_its_worker(desk: JobDesk) -> None:
    job = await _recorded(desk)
    assert await desk.finishing.publish_stalled() == 0  # the worker may still come back for it
    await desk.expire_lease(job)
    assert await desk.leases.reap() == 0
    assert await desk.ask(job, "host/2") is None
    assert await desk.finishing.publish_stalled() == 1
    job = await desk.get(job)
    assert (job.state, job.model_version, job.attempt) == (State.SUCCEEDED, VERSION, 1)
    assert await desk.finishing.succeed(job.id, 1, result()) == job  # the worker comes back after all


async def test_a_stalled_publication_waits_for_the_registry(desk: JobDesk) -> None:
    job = await _recorded(desk)
    desk.publisher.away_before = True
    await desk.expire_lease(job)
    assert await desk.finishing.publish_stalled() == 0
    assert (await desk.get(job)).is_publishing
    desk.publisher.away_before = False
    await desk.expire_lease(job)
    assert await desk.finishing.publish_stalled() == 1


async def test_replicas_share_the_stalled_publications(desk: JobDesk) -> None:
    job = await _recorded(desk)
    await desk.expire_lease(job)
    assert sum(await asyncio.gather(*(desk.finishing.publish_stalled() for _ in range(4)))) == 1


async def test_all_who_publish_at_the_same_time_give_one_version_and_one_event(desk: JobDesk) -> None:
    job = await desk.claimed()
    jobs = await asyncio.gather(*(desk.finishing.succeed(job.id, 1, result()) for _ in range(5)))
    assert {job.model_version for job in jobs} == {VERSION}
    states = [event.payload.state for event in await desk.history(job) if isinstance(event.payload, StateChange)]
    assert states.count(State.SUCCEEDED) == states.count(State.PUBLISHING) == 1
    assert len(desk.publisher.artifacts) == 1


async def test_another_result_of_the_same_attempt_is_refused(desk: JobDesk) -> None:
    job = await _recorded(desk)
    with pytest.raises(WrongState, match="another result"):
        await desk.finishing.succeed(job.id, 1, result("0" * 64))
    await desk.finishing.succeed(job.id, 1, result())
    with pytest.raises(WrongState, match="another result"):
        await desk.finishing.succeed(job.id, 1, result("0" * 64))


async def test_what_the_registry_refuses_for_ever_fails_the_job(desk: JobDesk) -> None:
    job = await desk.claimed()
    desk.publisher.refusal = "node 3 is of an unknown operator"
    job = await desk.finishing.succeed(job.id, 1, result())
    assert (job.state, job.failure_reason, job.model_version) == (State.FAILED, FailureReason.INTERNAL, "")
    assert "node 3 is of an unknown operator" in job.failure_message
    assert await desk.finishing.succeed(job.id, 1, result()) == job


async def test_a_failure_ends_the_job_with_its_reason(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [State.RUNNING])
    job = await desk.finishing.fail(job.id, 1, FailureReason.DIVERGED, "the loss is nan")
    assert (job.state, job.failure_reason, job.failure_message) == (
        State.FAILED, FailureReason.DIVERGED, "the loss is nan",
    )  # fmt: skip
    last = (await desk.history(job))[-1].payload
    assert last == StateChange(State.FAILED, State.RUNNING, FailureReason.DIVERGED, "the loss is nan")
    assert await desk.finishing.fail(job.id, 1, FailureReason.DIVERGED, "the loss is nan") == job


async def test_a_failure_after_a_recorded_result_is_refused(desk: JobDesk) -> None:
    job = await _recorded(desk)
    with pytest.raises(WrongState):
        await desk.finishing.fail(job.id, 1, FailureReason.INTERNAL, "gave up")
    await desk.finishing.succeed(job.id, 1, result())
    with pytest.raises(WrongState):
        await desk.finishing.fail(job.id, 1, FailureReason.INTERNAL, "gave up")


async def test_a_success_after_a_failure_is_refused(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.finishing.fail(job.id, 1, FailureReason.DATA, "too few rows")
    with pytest.raises(WrongState):
        await desk.finishing.succeed(job.id, 1, result())
    assert not desk.publisher.artifacts


async def test_a_stop_that_was_asked_for_ends_cancelled(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.cancel(job)
    job = await desk.finishing.cancel(job.id, 1)
    assert job.state is State.CANCELLED
    assert await desk.finishing.cancel(job.id, 1) == job


async def test_a_stop_that_nobody_asked_for_is_refused(desk: JobDesk) -> None:
    job = await desk.claimed()
    with pytest.raises(WrongState):
        await desk.finishing.cancel(job.id, 1)
    assert await desk.get(job) == job


async def test_a_success_that_comes_after_the_cancel_publishes_nothing(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.cancel(job)
    job = await desk.finishing.succeed(job.id, 1, result())
    assert job.state is State.CANCELLED
    assert await desk.finishing.succeed(job.id, 1, result()) == job
    assert not desk.publisher.artifacts


async def test_a_failure_that_comes_after_the_cancel_ends_cancelled(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.cancel(job)
    job = await desk.finishing.fail(job.id, 1, FailureReason.USER_CODE, "interrupted")
    assert (job.state, job.failure_reason) == (State.CANCELLED, None)


async def test_a_stale_attempt_finishes_nothing(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.expire_lease(job)
    current = (await desk.claim(job, "host/2")).job
    for finish in (
        desk.finishing.succeed(job.id, 1, result()),
        desk.finishing.fail(job.id, 1, FailureReason.DATA, ""),
        desk.finishing.cancel(job.id, 1),
    ):
        with pytest.raises(StaleAttempt):
            await finish
    assert await desk.get(job) == current
    assert not desk.publisher.artifacts


async def test_an_attempt_given_up_by_the_reaper_cannot_finish_the_job(desk: JobDesk) -> None:
    job = await desk.submit()
    for attempt in (1, 2, 3):
        assert (await desk.claim(job)).job.attempt == attempt
        await desk.expire_lease(job)
    await desk.leases.reap()
    assert (await desk.get(job)).state is State.FAILED
    with pytest.raises(StaleAttempt):
        await desk.finishing.succeed(job.id, 3, result())
    assert not desk.publisher.artifacts
