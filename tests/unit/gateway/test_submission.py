"""Submitting: once per request, all or nothing, with a doorbell."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Table, func, select

from modelyard.core.errors import ModelyardError, NotFound, RequestIdReused, Unavailable
from modelyard.gateway import tables
from modelyard.gateway.events import Event, StateChange
from modelyard.gateway.jobs import State
from support.job_desk import JobDesk, caller, submission


async def _count(desk: JobDesk, table: Table) -> int:
    async with desk.database.read() as connection:
        return (await connection.execute(select(func.count()).select_from(table))).scalar_one()


async def test_a_job_is_written_with_its_first_event_and_a_doorbell(desk: JobDesk) -> None:
    job = await desk.submit()
    assert (job.state, job.attempt, job.tenant, job.creator) == (State.QUEUED, 0, "default", "tester")
    assert await desk.get(job) == job
    assert await desk.history(job) == [Event(1, job.create_time, 0, StateChange(State.QUEUED))]
    assert await _count(desk, tables.doorbells) == 1
    assert [doorbell.job_id for doorbell in desk.doorbells] == [job.id]


async def test_times_are_the_databases(desk: JobDesk) -> None:
    job = await desk.submit()
    assert job.create_time == pytest.approx(job.update_time, abs=1e6)
    assert job.create_time > 1_700_000_000_000_000


async def test_the_same_request_id_and_content_answer_the_same_job(desk: JobDesk) -> None:
    first = await desk.submit("request-1")
    await desk.claim(first)
    again = await desk.submit("request-1")
    assert again.id == first.id
    assert again.state is State.LEASED
    assert await _count(desk, tables.jobs) == await _count(desk, tables.doorbells) == 1


@pytest.mark.parametrize("fault", [Unavailable("the registry is away"), NotFound.resource("datasets/table")])
async def test_a_repetition_is_answered_whatever_has_become_of_the_registry(
    desk: JobDesk, fault: ModelyardError
) -> None:
    first = await desk.submit("request-1")
    desk.planner.fault = fault
    assert (await desk.submit("request-1")).id == first.id
    assert (await desk.submissions.submit(submission("request-1"), caller(), validate_only=True)).id == first.id
    with pytest.raises(RequestIdReused):
        await desk.submit("request-1", content_digest="0" * 64)
    with pytest.raises(type(fault)):
        await desk.submit("request-2")


async def test_the_same_request_id_with_other_content_is_refused(desk: JobDesk) -> None:
    await desk.submit("request-1")
    with pytest.raises(RequestIdReused):
        await desk.submit("request-1", content_digest="0" * 64)
    assert await _count(desk, tables.jobs) == await _count(desk, tables.doorbells) == 1


async def test_request_ids_are_per_tenant(desk: JobDesk) -> None:
    ours = await desk.submit("request-1")
    theirs = await desk.submissions.submit(submission("request-1"), caller(tenant="other"))
    assert theirs.id != ours.id


async def test_without_request_id_every_call_makes_a_job(desk: JobDesk) -> None:
    assert (await desk.submit()).id != (await desk.submit()).id


async def test_the_same_request_at_the_same_time_makes_one_job(desk: JobDesk) -> None:
    jobs = await asyncio.gather(*(desk.submit("request-1") for _ in range(8)))
    assert len({job.id for job in jobs}) == 1
    assert await _count(desk, tables.jobs) == await _count(desk, tables.doorbells) == 1


async def test_validate_only_writes_nothing(desk: JobDesk) -> None:
    job = await desk.submissions.submit(submission("request-1"), caller(), validate_only=True)
    assert (job.id, job.state, job.parameter_count) == ("", State.QUEUED, 1081)
    assert await _count(desk, tables.jobs) == await _count(desk, tables.doorbells) == 0
    assert not desk.doorbells


async def test_a_write_that_fails_leaves_nothing(desk: JobDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_arguments: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr("modelyard.gateway.doorbells.write", broken)
    with pytest.raises(RuntimeError, match="power cut"):
        await desk.submit()
    for table in (tables.jobs, tables.job_definitions, tables.job_events, tables.doorbells):
        assert await _count(desk, table) == 0


async def test_another_tenants_job_is_not_found(desk: JobDesk) -> None:
    job = await desk.submit()
    with pytest.raises(NotFound):
        await desk.ledger.get(job.id, tenant="other")
    assert (await desk.ledger.get(job.id, tenant=None)).id == job.id
