"""Claiming: one worker gets a queued job, and a dead lease is taken back first."""

from __future__ import annotations

import asyncio

import pytest

from modelyard.core.errors import StaleAttempt
from modelyard.gateway.claims import Asker
from modelyard.gateway.events import AttemptStart, StateChange
from modelyard.gateway.jobs import State
from support.job_desk import LEASE_S, MAX_ATTEMPTS, JobDesk, result


async def test_a_claim_raises_the_attempt_and_leases_the_job(desk: JobDesk) -> None:
    job = await desk.submit()
    claim = await desk.claim(job, "host/7")
    assert (claim.job.state, claim.job.attempt, claim.job.worker) == (State.LEASED, 1, "host/7")
    assert claim.dataset == b"the dataset"
    assert claim.job.lease_until is not None
    assert claim.job.lease_until - claim.job.update_time == pytest.approx(LEASE_S * 1e6, abs=1e4)
    assert claim.job == await desk.get(job)
    told = (await desk.history(job))[1:]
    assert [(event.sequence, event.attempt) for event in told] == [(2, 1), (3, 1)]
    assert [event.payload for event in told] == [
        StateChange(State.LEASED, State.QUEUED, message="claimed by host/7"), AttemptStart("host/7"),
    ]  # fmt: skip


async def test_of_many_workers_one_gets_the_job(desk: JobDesk) -> None:
    job = await desk.submit()
    claims = await asyncio.gather(*(desk.ask(job, f"host/{i}") for i in range(10)))
    (winner,) = [claim for claim in claims if claim]
    assert (await desk.get(job)).worker == winner.job.worker
    assert (await desk.get(job)).attempt == 1


async def test_a_held_job_is_not_given_away(desk: JobDesk) -> None:
    job = await desk.claimed()
    assert await desk.ask(job, "host/2") is None


async def test_an_unknown_job_is_nothing_to_do(desk: JobDesk) -> None:
    assert await desk.claims.claim("0" * 16, Asker("host/1")) is None


async def test_a_lease_that_ran_out_goes_to_the_next_worker(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [State.PREPARING, State.RUNNING])
    await desk.expire_lease(job)
    claim = await desk.claim(job, "host/2")
    assert (claim.job.attempt, claim.job.worker) == (2, "host/2")
    states = [event.payload.state for event in await desk.history(job) if isinstance(event.payload, StateChange)]
    assert states[-3:] == [State.RUNNING, State.QUEUED, State.LEASED]
    with pytest.raises(StaleAttempt):
        await desk.reports.report(job.id, 1, 3, [])


async def test_a_claim_that_comes_beside_the_reaper_gets_the_job(
    desk: JobDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await desk.claimed()
    await desk.expire_lease(job)
    take_back = desk.leases.take_back

    async def after_the_reaper(job_id: str, *, ring: bool) -> State | None:
        assert await take_back(job_id, ring=True) is State.QUEUED
        return await take_back(job_id, ring=ring)

    monkeypatch.setattr(desk.leases, "take_back", after_the_reaper)
    assert (await desk.claim(job, "host/2")).job.attempt == 2


async def test_in_the_grace_after_a_start_no_lease_is_taken_over(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.expire_lease(job)
    desk.leases.give_grace()
    assert await desk.ask(job, "host/2") is None
    await desk.reports.report(job.id, 1, 1, [])  # the worker was alive all along


async def test_no_claim_beyond_the_last_attempt(desk: JobDesk) -> None:
    job = await desk.submit()
    for _ in range(MAX_ATTEMPTS):
        await desk.claim(job)
        await desk.expire_lease(job)
    assert await desk.ask(job, "host/2") is None
    assert (await desk.get(job)).state is State.FAILED


async def test_a_cancelled_job_is_not_given_away(desk: JobDesk) -> None:
    job = await desk.submit()
    await desk.cancel(job)
    assert await desk.ask(job, "host/1") is None


async def test_a_job_with_a_recorded_result_is_not_given_away(desk: JobDesk) -> None:
    job = await desk.claimed()
    desk.publisher.away_before = True
    with pytest.raises(Exception, match="registry is away"):
        await desk.finishing.succeed(job.id, 1, result())
    await desk.expire_lease(job)
    assert await desk.ask(job, "host/2") is None
    assert (await desk.get(job)).attempt == 1


async def test_a_new_attempt_starts_with_a_clean_slate(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [State.RUNNING])
    await desk.expire_lease(job)
    claim = await desk.claim(job)
    assert (claim.job.updates_received, claim.job.progress, claim.job.evaluation) == (0, None, None)
    receipt = await desk.reports.report(job.id, 2, 1, [State.PREPARING])
    assert receipt.updates_received == 1
