"""Attempts: a row and two events for each, with the cause of its end."""

from __future__ import annotations

import pytest

from modelyard.core.errors import InvalidFields, NotFound, Unavailable
from modelyard.gateway.attempts import Attempt, EndCause, list_attempts
from modelyard.gateway.events import AttemptEnd, AttemptStart, Payload, StateChange
from modelyard.gateway.jobs import FailureReason, Job, State
from modelyard.v1.training_job_pb2 import TrainingAttempt
from support.job_desk import JobDesk, result


async def _attempts(desk: JobDesk, job: Job) -> list[Attempt]:
    found, token = await list_attempts(desk.database, job.id, page_size=100)
    assert token == ""
    return found


async def _ends(desk: JobDesk, job: Job) -> list[Payload]:
    return [event.payload for event in await desk.history(job) if isinstance(event.payload, AttemptEnd)]


def test_causes_are_those_of_the_api() -> None:
    causes = {name.removeprefix("END_CAUSE_") for name in TrainingAttempt.EndCause.keys()}  # noqa: SIM118 - a protobuf enum
    assert causes - {"UNSPECIFIED"} == set(EndCause)


async def test_a_claim_begins_an_attempt(desk: JobDesk) -> None:
    job = (await desk.claim(await desk.submit(), "node-7/12")).job
    (attempt,) = await _attempts(desk, job)
    assert (attempt.attempt, attempt.worker, attempt.node) == (1, "node-7/12", "node-7")
    assert (attempt.start_time, attempt.end_time, attempt.end_cause) == (job.claim_time, None, None)
    last = (await desk.history(job))[-1]
    assert (last.payload, last.attempt) == (AttemptStart("node-7/12"), 1)


async def test_a_success_ends_it(desk: JobDesk) -> None:
    job = await desk.claimed()
    job = await desk.finishing.succeed(job.id, 1, result())
    (attempt,) = await _attempts(desk, job)
    assert (attempt.end_cause, attempt.end_time) == (EndCause.SUCCEEDED, job.finish_time)
    assert await _ends(desk, job) == [AttemptEnd(EndCause.SUCCEEDED)]


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (FailureReason.USER_CODE, EndCause.FAILED),
        (FailureReason.GATE_REJECTED, EndCause.FAILED),
        (FailureReason.DEADLINE, EndCause.DEADLINE),
        (FailureReason.INTERNAL, EndCause.WORKER_FAULT),
    ],
)
async def test_a_failure_ends_it_with_its_kind_of_cause(desk: JobDesk, reason: FailureReason, cause: EndCause) -> None:
    job = await desk.claimed()
    await desk.finishing.fail(job.id, 1, reason, "no more")
    (attempt,) = await _attempts(desk, job)
    assert (attempt.end_cause, attempt.message) == (cause, "no more")


async def test_an_end_is_told_before_the_event_that_ends_the_job(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.finishing.fail(job.id, 1, FailureReason.DATA, "too few rows")
    told = [event.payload for event in await desk.history(job)][-2:]
    assert told == [
        AttemptEnd(EndCause.FAILED, "too few rows"),
        StateChange(State.FAILED, State.LEASED, FailureReason.DATA, "too few rows"),
    ]


async def test_a_refusal_by_the_registry_ends_it(desk: JobDesk) -> None:
    job = await desk.claimed()
    desk.publisher.refusal = "no such operator"
    await desk.finishing.succeed(job.id, 1, result())
    (end,) = await _ends(desk, job)
    assert isinstance(end, AttemptEnd)
    assert (end.cause, end.retried) == (EndCause.FAILED, False)


async def test_a_result_that_waits_for_the_registry_does_not_end_it(desk: JobDesk) -> None:
    job = await desk.claimed()
    desk.publisher.away_before = True
    with pytest.raises(Unavailable):
        await desk.finishing.succeed(job.id, 1, result())
    assert await _ends(desk, job) == []


async def test_a_cancel_ends_it(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.cancel(job)
    await desk.finishing.cancel(job.id, 1)
    assert await _ends(desk, job) == [AttemptEnd(EndCause.CANCELLED)]


async def test_a_lost_worker_ends_it_and_the_next_one_begins(desk: JobDesk) -> None:
    job = (await desk.claim(await desk.submit(), "a/1")).job
    await desk.expire_lease(job)
    await desk.claim(job, "b/1")
    second, first = await _attempts(desk, job)
    assert (first.node, first.end_cause) == ("a", EndCause.WORKER_LOST)
    assert (second.attempt, second.node, second.end_cause) == (2, "b", None)
    message = "the worker of attempt 1 stopped reporting"
    assert await _ends(desk, job) == [AttemptEnd(EndCause.WORKER_LOST, message, retried=True)]


async def test_the_time_that_workers_were_held_is_summed(desk: JobDesk) -> None:
    job = await desk.claimed()
    for seconds in (100, 30):
        await desk.pass_time(job, seconds)
        await desk.expire_lease(job)
        await desk.leases.reap()
        await desk.claim(job)
    job = await desk.get(job)
    assert 130e6 <= job.run_time < 190e6


async def test_pages_of_attempts_are_newest_first(desk: JobDesk) -> None:
    job = await desk.submit()
    for _ in range(3):
        await desk.claim(job)
        await desk.finishing.release(job.id, (await desk.get(job)).attempt, EndCause.WORKER_STOPPED, "draining")
    first, token = await list_attempts(desk.database, job.id, page_size=2)
    second, end = await list_attempts(desk.database, job.id, page_size=2, page_token=token)
    assert [attempt.attempt for attempt in [*first, *second]] == [3, 2, 1]
    assert (bool(token), end) == (True, "")
    with pytest.raises(InvalidFields):
        await list_attempts(desk.database, job.id, page_size=2, page_token="no token")


async def test_attempts_of_another_tenants_job_are_not_found(desk: JobDesk) -> None:
    job = await desk.claimed()
    with pytest.raises(NotFound):
        await desk.ledger.get(job.id, tenant="other")
