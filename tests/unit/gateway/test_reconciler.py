"""The reconciler: lost doorbells are made up for, and only those."""

from __future__ import annotations

import asyncio

from sqlalchemy import update

from modelyard.gateway import tables
from modelyard.gateway.outbox import Outbox, pending
from modelyard.gateway.reconciler import Reconciler
from support.job_desk import JobDesk
from support.memory_bell import MemoryBell

RING_AGAIN_S = 30.0


async def _rung_long_ago(desk: JobDesk) -> None:
    async with desk.database.write() as connection:
        table = tables.jobs
        await connection.execute(update(table).where(table.c.rung_time.is_not(None)).values(rung_time=1))


def _reconciler(desk: JobDesk, bell: MemoryBell) -> Reconciler:
    return Reconciler(desk.database, bell, desk.queues, desk.bounds, ring_again_s=RING_AGAIN_S)


async def _ring(outbox: Outbox) -> None:
    await outbox.relay()
    await outbox.settle()


async def _ring_left(outbox: Outbox) -> None:
    await outbox.relay_left()
    await outbox.settle()


async def test_a_broker_that_lost_everything_is_refilled(desk: JobDesk) -> None:
    jobs = [await desk.submit() for _ in range(3)]
    bell = MemoryBell()
    relay = desk.outbox(bell)
    await _ring(relay)
    bell.queue.clear()  # FLUSHALL
    await _rung_long_ago(desk)
    assert await _reconciler(desk, bell).ring_again() == 3
    await _ring_left(relay)
    assert sorted(bell.queue) == sorted(job.name for job in jobs)


async def test_a_doorbell_that_is_young_is_waited_for(desk: JobDesk) -> None:
    await desk.submit()
    bell = MemoryBell()
    await _ring(desk.outbox(bell))
    bell.queue.clear()
    assert await _reconciler(desk, bell).ring_again() == 0


async def test_a_long_queue_behind_busy_workers_is_not_rung_for_again(desk: JobDesk) -> None:
    for _ in range(5):
        await desk.submit()
    bell = MemoryBell()
    await _ring(desk.outbox(bell))
    await _rung_long_ago(desk)
    assert await _reconciler(desk, bell).ring_again() == 0


async def test_only_as_many_are_rung_as_are_missing_and_all_get_their_turn(desk: JobDesk) -> None:
    jobs = [await desk.submit() for _ in range(4)]
    bell = MemoryBell()
    relay = desk.outbox(bell)
    await _ring(relay)
    bell.queue.remove(jobs[2].name)  # a worker popped it and died
    await _rung_long_ago(desk)
    assert await _reconciler(desk, bell).ring_again() == 1
    for _ in range(4):
        await _ring_left(relay)
        bell.queue.pop(0)  # a busy day: each message that a worker takes makes room for one more
        await _reconciler(desk, bell).ring_again()
    await _ring_left(relay)
    assert jobs[2].name in bell.rung[4:]


async def test_doorbells_in_the_outbox_are_under_way(desk: JobDesk) -> None:
    await desk.submit()
    await _rung_long_ago(desk)
    assert (await pending(desk.database)).total() == 1
    assert await _reconciler(desk, MemoryBell()).ring_again() == 0


async def test_jobs_that_are_not_queued_are_not_rung_for(desk: JobDesk) -> None:
    await desk.claimed()
    await desk.cancel(await desk.submit())
    bell = MemoryBell()
    await _ring(desk.outbox(bell))
    bell.queue.clear()
    await _rung_long_ago(desk)
    assert await _reconciler(desk, bell).ring_again() == 0


async def test_with_the_broker_away_nothing_is_written(desk: JobDesk) -> None:
    await desk.submit()
    bell = MemoryBell()
    await _ring(desk.outbox(bell))
    await _rung_long_ago(desk)
    bell.accepts = 0
    assert await _reconciler(desk, bell).ring_again() == 0
    assert (await pending(desk.database)).total() == 0


async def test_replicas_ring_again_once(desk: JobDesk) -> None:
    for _ in range(3):
        await desk.submit()
    bell = MemoryBell()
    await _ring(desk.outbox(bell))
    bell.queue.clear()
    await _rung_long_ago(desk)
    assert sum(await asyncio.gather(*(_reconciler(desk, bell).ring_again() for _ in range(4)))) == 3
