"""Reporting: behind the fence, each update once, states only forward."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import InvalidFields, NotFound, StaleAttempt, WrongState
from modelyard.gateway.events import Document, Kind, LogLine, StateChange
from modelyard.gateway.jobs import State
from modelyard.gateway.reports import MAX_PROGRESS_EVENTS, Directive, Update, thinned, unseen
from support.job_desk import JobDesk, result


def _progress(step: int) -> Document:
    return Document(Kind.PROGRESS, f"step {step}".encode())


EVALUATION = Document(Kind.EVALUATION, b"r2 0.5")


async def test_updates_become_events_in_order_and_show_on_the_job(desk: JobDesk) -> None:
    job = await desk.claimed()
    updates: list[Update] = [
        State.PREPARING, LogLine("reading"), State.RUNNING, _progress(1), _progress(2), State.EVALUATING, EVALUATION,
    ]  # fmt: skip
    receipt = await desk.reports.report(job.id, 1, 1, updates)
    assert (receipt.directive, receipt.updates_received) == (Directive.CONTINUE, 7)
    job = await desk.get(job)
    assert (job.state, job.progress, job.evaluation) == (State.EVALUATING, b"step 2", b"r2 0.5")
    assert job.start_time is not None
    history = await desk.history(job)
    assert [event.sequence for event in history] == list(range(1, 11))
    assert [event.payload for event in history[3:]] == [
        StateChange(State.PREPARING, State.LEASED), LogLine("reading"), StateChange(State.RUNNING, State.PREPARING),
        _progress(1), _progress(2), StateChange(State.EVALUATING, State.RUNNING), EVALUATION,
    ]  # fmt: skip
    assert {event.attempt for event in history[3:]} == {1}


async def test_a_report_renews_the_lease(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.expire_lease(job)
    await desk.reports.report(job.id, 1, 1, [])
    renewed = (await desk.get(job)).lease_until
    assert renewed is not None
    assert renewed >= (job.lease_until or 0)


async def test_a_repeated_report_adds_nothing(desk: JobDesk) -> None:
    job = await desk.claimed()
    updates: list[Update] = [State.RUNNING, _progress(1)]
    await desk.reports.report(job.id, 1, 1, updates)
    history = await desk.history(job)
    receipt = await desk.reports.report(job.id, 1, 1, updates)
    assert receipt.updates_received == 2
    assert await desk.history(job) == history


async def test_a_report_that_overlaps_adds_what_is_new(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [State.RUNNING, _progress(1)])
    await desk.reports.report(job.id, 1, 2, [_progress(1), _progress(2), _progress(3)])
    history = await desk.history(job)
    assert [event.payload for event in history[-3:]] == [_progress(1), _progress(2), _progress(3)]
    assert history[-1].sequence == len(history) == 7


@pytest.mark.parametrize("first_update", [-1, 0, 3])
async def test_a_gap_in_the_updates_is_refused(desk: JobDesk, first_update: int) -> None:
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [State.RUNNING])
    with pytest.raises(InvalidFields, match="expected 1 to 2"):
        await desk.reports.report(job.id, 1, first_update, [_progress(1)])


async def test_a_report_with_one_wrong_state_records_nothing(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [State.RUNNING])
    before, history = await desk.get(job), await desk.history(job)
    with pytest.raises(WrongState):
        await desk.reports.report(job.id, 1, 2, [_progress(1), State.PREPARING])
    assert await desk.get(job) == before
    assert await desk.history(job) == history


@pytest.mark.parametrize("attempt", [0, 2, -1])
async def test_a_stale_attempt_changes_nothing(desk: JobDesk, attempt: int) -> None:
    job = await desk.claimed()
    with pytest.raises(StaleAttempt):
        await desk.reports.report(job.id, attempt, 1, [State.RUNNING])
    assert await desk.get(job) == job


async def test_the_fence_holds_for_jobs_that_nobody_holds(desk: JobDesk) -> None:
    queued = await desk.submit()
    with pytest.raises(StaleAttempt):
        await desk.reports.report(queued.id, 0, 1, [])
    ended = await desk.claimed()
    await desk.finishing.succeed(ended.id, 1, result())
    with pytest.raises(StaleAttempt):
        await desk.reports.report(ended.id, 1, 1, [LogLine("still here")])


async def test_an_attempt_that_was_taken_back_is_stale_before_the_next_claim(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.expire_lease(job)
    assert await desk.leases.reap() == 1
    with pytest.raises(StaleAttempt):
        await desk.reports.report(job.id, 1, 1, [])


async def test_an_unknown_job_is_not_found(desk: JobDesk) -> None:
    with pytest.raises(NotFound):
        await desk.reports.report("0" * 16, 1, 1, [])


async def test_a_worker_of_a_cancelled_job_is_told_and_its_last_words_are_kept(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [State.RUNNING])
    await desk.cancel(job)
    receipt = await desk.reports.report(job.id, 1, 2, [_progress(9), State.EVALUATING, LogLine("stopping")])
    assert (receipt.directive, receipt.updates_received) == (Directive.CANCEL, 4)
    job = await desk.get(job)
    assert (job.state, job.progress) == (State.CANCELLING, b"step 9")


async def test_a_state_said_twice_is_one_event(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [State.RUNNING, State.RUNNING])
    assert (await desk.get(job)).last_sequence == 4


async def test_the_first_step_keeps_its_time_when_the_job_is_tried_again(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [State.RUNNING])
    started = (await desk.get(job)).start_time
    await desk.expire_lease(job)
    await desk.claim(job)
    await desk.reports.report(job.id, 2, 1, [State.RUNNING])
    assert started is not None
    assert (await desk.get(job)).start_time == started


@given(received=st.integers(0, 30), first=st.integers(-3, 40), count=st.integers(0, 30))
def test_unseen_updates_continue_exactly_where_the_recorded_ones_end(received: int, first: int, count: int) -> None:
    updates = [LogLine(str(first + i)) for i in range(count)]
    if count and not 1 <= first <= received + 1:
        with pytest.raises(InvalidFields):
            unseen(updates, first, received)
    else:
        assert list(unseen(updates, first, received)) == [
            LogLine(str(number)) for number in range(max(first, received + 1), first + count)
        ]


def _update(kind: str, i: int) -> Update:
    made: dict[str, Update] = {"p": _progress(i), "l": LogLine(str(i)), "s": State.RUNNING, "e": EVALUATION}
    return made[kind]


@given(st.lists(st.sampled_from("plse"), max_size=400))
def test_thinning_drops_only_surplus_progress_and_keeps_the_newest(kinds: list[str]) -> None:
    updates = [_update(kind, i) for i, kind in enumerate(kinds)]
    kept = list(thinned(updates))
    wanted = [update for update in updates if update in kept]
    assert kept == wanted  # the order stays
    progress = [update for update in updates if isinstance(update, Document) and update.kind is Kind.PROGRESS]
    kept_progress = [update for update in kept if update in progress]
    assert len(kept_progress) == min(len(progress), MAX_PROGRESS_EVENTS)
    assert len(kept) - len(kept_progress) == len(updates) - len(progress)
    assert kept_progress[-1:] == progress[-1:]
