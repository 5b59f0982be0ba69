"""Workers say that they are there."""

from __future__ import annotations

from sqlalchemy import func, select, update

from modelyard.gateway import tables
from modelyard.gateway.presence import Presence, WorkerState
from modelyard.gateway.queues import QueueStatus, read_queues
from support.job_desk import JobDesk


def says(
    worker: str, state: WorkerState = WorkerState.IDLE, *, queues: tuple[str, ...] = ("cpu",), job_id: str = ""
) -> Presence:
    """What a worker might say."""
    return Presence(worker, worker.partition("/")[0], queues, state, job_id, "cpu")


async def _silence(desk: JobDesk, worker: str) -> None:
    async with desk.database.write() as connection:
        await connection.execute(update(tables.workers).where(tables.workers.c.name == worker).values(report_time=1))


async def _rows(desk: JobDesk) -> int:
    async with desk.database.read() as connection:
        return (await connection.execute(select(func.count()).select_from(tables.workers))).scalar_one()


async def test_the_newest_report_of_each_is_shown_by_name(desk: JobDesk) -> None:
    for worker in ("b/2", "a/1"):
        await desk.workers.report(says(worker))
    (first, _) = await desk.workers.visible(tenant=None)
    await desk.workers.report(says("a/1", WorkerState.STOPPING))
    found = await desk.workers.visible(tenant=None)
    assert [worker.presence for worker in found] == [says("a/1", WorkerState.STOPPING), says("b/2")]
    assert found[0].start_time == first.start_time <= found[0].report_time


async def test_of_another_tenants_job_nothing_is_told(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.workers.report(says("a/1", WorkerState.BUSY, job_id=job.id))
    for tenant, told in ((None, job.id), ("default", job.id), ("other", "")):
        (worker,) = await desk.workers.visible(tenant=tenant)
        assert (worker.presence.job_id, worker.presence.state) == (told, WorkerState.BUSY)


async def test_one_that_is_silent_is_not_shown_and_then_forgotten(desk: JobDesk) -> None:
    for worker in ("a/1", "b/2"):
        await desk.workers.report(says(worker))
    await _silence(desk, "a/1")
    assert [worker.presence.worker for worker in await desk.workers.visible(tenant=None)] == ["b/2"]
    assert await _rows(desk) == 2
    await desk.workers.forget()
    assert await _rows(desk) == 1


async def test_queues_tell_who_waits_runs_and_works(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.submit()
    await desk.submit(tenant="other", queue="gpu")
    await desk.submit(queue="old")  # from a time when there was a queue of this name
    await desk.workers.report(says("a/1", WorkerState.BUSY, job_id=job.id))
    await desk.workers.report(says("b/1", queues=("gpu", "cpu")))
    await desk.workers.report(says("c/1", WorkerState.STOPPING))
    async with desk.database.read() as connection:
        found = await read_queues(connection, desk.queues, await desk.workers.read(connection))
    assert found == [
        QueueStatus("cpu", waiting=1, running=1, workers=2, idle_workers=1, max_running=0),
        QueueStatus("gpu", waiting=1, running=0, workers=1, idle_workers=1, max_running=0),
        QueueStatus("old", waiting=1, running=0, workers=0, idle_workers=0, max_running=0),
    ]
