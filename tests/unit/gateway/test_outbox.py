"""The outbox: every doorbell reaches the broker, whatever happens on the way."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from modelyard.gateway import outbox, tables
from modelyard.gateway.outbox import Outbox, pending
from support.job_desk import JobDesk
from support.memory_bell import MemoryBell


async def _make_due(desk: JobDesk) -> None:
    """Lets the waiting time of every doorbell be over."""
    async with desk.database.write() as connection:
        await connection.execute(update(tables.doorbells).values(due_time=1))


async def test_a_doorbell_is_rung_with_the_jobs_name_and_deleted(desk: JobDesk) -> None:
    job, bell = await desk.submit(), MemoryBell()
    relay = desk.outbox(bell)
    await relay.relay()
    assert bell.rung == [f"trainingJobs/{job.id}"]
    await relay.settle()
    assert (await pending(desk.database)).total() == 0


async def test_one_that_was_rung_but_not_deleted_is_harmless(desk: JobDesk) -> None:
    await desk.submit()
    bell = MemoryBell()
    relay = desk.outbox(bell)
    await relay.relay()  # and then it dies
    await _make_due(desk)
    heir = Outbox(desk.database, bell)
    await heir.relay_left()
    assert len(bell.rung) == 2
    await relay.settle()  # had it only been slow
    await heir.settle()
    assert (await pending(desk.database)).total() == 0


async def test_a_database_that_is_away_loses_no_deletion(desk: JobDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.submit()
    relay = desk.outbox(MemoryBell())
    await relay.relay()
    with monkeypatch.context() as patch, pytest.raises(OperationalError):
        patch.setattr(desk.database, "write", _away)
        await relay.settle()
    await relay.settle()
    assert (await pending(desk.database)).total() == 0


def _away() -> None:
    raise OperationalError("BEGIN", {}, Exception("the database is away"))


async def test_with_the_broker_away_doorbells_stay_and_are_tried_again_later(desk: JobDesk) -> None:
    await desk.submit()
    bell = MemoryBell(accepts=0)
    relay = desk.outbox(bell)
    assert await relay.relay() is False
    bell.accepts = 10
    await relay.relay()
    assert await relay.relay_left() is False
    assert bell.rung == []  # not due yet
    await _make_due(desk)
    await relay.relay_left()
    assert len(bell.rung) == 1
    await relay.settle()
    assert (await pending(desk.database)).total() == 0


async def test_the_wait_grows_with_every_try_up_to_a_limit(desk: JobDesk) -> None:
    await desk.submit()
    relay = desk.outbox(MemoryBell(accepts=0))
    await relay.relay()
    waits = []
    for _ in range(8):
        async with desk.database.read() as connection:
            row = (await connection.execute(select(tables.doorbells.c.due_time, tables.doorbells.c.tries))).one()
        waits.append((row.tries, outbox._backoff_us(row.tries)))
        assert row.due_time > 1
        await _make_due(desk)
        await relay.relay_left()
    assert [tries for tries, _ in waits] == list(range(1, 9))
    assert [wait for _, wait in waits[:6]] == [250_000, 500_000, 1_000_000, 2_000_000, 4_000_000, 5_000_000]
    assert {wait for _, wait in waits[6:]} == {5_000_000}


async def test_a_broker_that_goes_away_half_way_gets_the_rest_later(desk: JobDesk) -> None:
    jobs = [await desk.submit() for _ in range(5)]
    bell = MemoryBell(accepts=2)
    relay = desk.outbox(bell)
    await relay.relay()
    await relay.settle()
    assert (await pending(desk.database)).total() == 3
    bell.accepts = 100
    await _make_due(desk)
    await relay.relay_left()
    assert bell.rung == [job.name for job in jobs]


async def test_what_a_process_has_written_is_left_to_it_while_it_lives(desk: JobDesk) -> None:
    await desk.submit()
    bell = MemoryBell()
    await Outbox(desk.database, bell).relay_left()
    assert bell.rung == []
    await desk.outbox(bell).relay()
    assert len(bell.rung) == 1


async def test_what_a_dead_process_has_written_is_rung_by_another(desk: JobDesk) -> None:
    await desk.submit()
    await _make_due(desk)
    bell = MemoryBell()
    await Outbox(desk.database, bell).relay_left()
    assert len(bell.rung) == 1


async def test_what_a_dead_process_has_taken_is_rung_by_another(desk: JobDesk) -> None:
    await desk.submit()
    await _make_due(desk)
    await Outbox(desk.database, MemoryBell())._take()  # and then it dies
    bell = MemoryBell()
    await Outbox(desk.database, bell).relay_left()
    assert bell.rung == []
    await _make_due(desk)
    await Outbox(desk.database, bell).relay_left()
    assert len(bell.rung) == 1


async def test_processes_share_what_was_left_behind(desk: JobDesk) -> None:
    for _ in range(20):
        await desk.submit()
    await _make_due(desk)
    bell = MemoryBell()
    await asyncio.gather(*(Outbox(desk.database, bell).relay_left() for _ in range(5)))
    assert len(bell.rung) == len(set(bell.rung)) == 20


async def test_more_than_a_batch_is_asked_for_again_at_once(desk: JobDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_BATCH", 2)
    for _ in range(3):
        await desk.submit()
    bell = MemoryBell()
    relay = desk.outbox(bell)
    assert [await relay.relay(), await relay.relay(), await relay.relay()] == [True, False, False]
    await relay.settle()
    for _ in range(3):
        await desk.submit()
    await _make_due(desk)
    assert [await relay.relay_left(), await relay.relay_left(), await relay.relay_left()] == [True, False, False]
    assert len(bell.rung) == 6
