"""Which job a worker is given: by tenant, by priority, within the limits, and who rings when there is room again."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import update

from modelyard.core.database import Database
from modelyard.core.errors import ResourceExhausted
from modelyard.gateway import tables
from modelyard.gateway.jobs import FailureReason, Job, State
from modelyard.gateway.outbox import pending
from modelyard.gateway.scheduling import Queues
from modelyard.gateway.tenants import Bounds
from support.job_desk import JobDesk


async def _order(desk: JobDesk, first: Job, count: int) -> list[str]:
    """The display names of the jobs that workers get one after the other."""
    return [(await desk.claim(first)).job.display_name for _ in range(count)]


async def _end(desk: JobDesk, job: Job) -> None:
    await desk.finishing.fail(job.id, job.attempt, FailureReason.DATA, "bad")


async def _change(desk: JobDesk, job: Job, **values: object) -> None:
    async with desk.database.write() as connection:
        await connection.execute(update(tables.jobs).where(tables.jobs.c.id == job.id).values(values))


async def test_of_one_tenants_jobs_the_higher_priority_goes_first_then_the_older(desk: JobDesk) -> None:
    jobs = [await desk.submit(display_name=str(i), priority=priority) for i, priority in enumerate([0, 5, -5, 5])]
    for i, job in enumerate(jobs):
        await _change(desk, job, place_time=i)
    assert await _order(desk, jobs[0], 4) == ["1", "3", "0", "2"]


async def test_priority_is_no_advantage_over_another_tenant(desk: JobDesk) -> None:
    for _ in range(3):
        first = await desk.submit(tenant="loud", display_name="loud", priority=100)
        await desk.submit(tenant="quiet", display_name="quiet", priority=-100)
    order = await _order(desk, first, 6)
    assert Counter(order[:2]) == Counter(order[2:4]) == Counter(loud=1, quiet=1)


async def test_a_flood_of_one_tenant_does_not_keep_another_waiting(desk: JobDesk) -> None:
    flood = [await desk.submit(tenant="flood", display_name="flood") for _ in range(8)]
    await _order(desk, flood[0], 3)
    await desk.submit(tenant="late", display_name="late")
    assert await _order(desk, flood[0], 1) == ["late"]


async def test_running_jobs_follow_the_weights(desk: JobDesk) -> None:
    await desk.tenants.update("big", {"weight": 2.0})
    for _ in range(9):
        first = await desk.submit(tenant="big", display_name="big")
        await desk.submit(tenant="small", display_name="small")
    assert Counter(await _order(desk, first, 9)) == Counter(big=6, small=3)


async def test_a_doorbell_starts_only_jobs_of_its_own_queue(desk: JobDesk) -> None:
    cpu, gpu = await desk.submit(queue="cpu"), await desk.submit(queue="gpu", priority=100)
    assert (await desk.claim(cpu)).job.id == cpu.id
    assert await desk.ask(cpu) is None
    assert (await desk.claim(gpu)).job.id == gpu.id


async def test_a_job_is_not_given_away_before_its_next_try_nor_after_its_time(desk: JobDesk) -> None:
    later, over = await desk.submit(priority=9), await desk.submit(priority=8, max_queue_time=60_000_000)
    now = await desk.submit()
    await _change(desk, later, retry_time=2**60)
    await _change(desk, over, expire_time=1)
    assert (await desk.claim(later)).job.id == now.id
    assert await desk.ask(now) is None


async def test_a_job_whose_worker_was_lost_keeps_its_place_and_begins_a_new_wait(desk: JobDesk) -> None:
    old = await desk.submit(display_name="old", max_queue_time=60_000_000)
    held = (await desk.claim(old)).job
    assert (held.queued_time, held.expire_time) == (None, None)
    await desk.submit(display_name="new")
    await desk.expire_lease(old)
    await desk.leases.reap()
    again = await desk.get(old)
    assert again.queued_time is not None
    assert again.queued_time > (old.queued_time or 0)
    assert again.expire_time == again.queued_time + 60_000_000
    assert await _order(desk, old, 2) == ["old", "new"]


class TestLimits:
    @pytest.fixture
    def desk(self, database: Database) -> JobDesk:
        """A queue of one place, and tenants with two."""
        return JobDesk(database, queues=Queues(("cpu", "gpu"), {"gpu": 1}), bounds=Bounds(max_running_jobs=2))

    async def test_a_tenant_at_its_limit_is_passed_over(self, desk: JobDesk) -> None:
        jobs = [await desk.submit() for _ in range(3)]
        other = await desk.submit(tenant="other", queue="cpu")
        claimed = [await desk.claim(jobs[0]) for _ in range(3)]
        assert {claim.job.tenant for claim in claimed} == {"default", "other"}
        assert other.id in {claim.job.id for claim in claimed}
        assert await desk.ask(jobs[0]) is None

    async def test_a_tenants_limit_reaches_over_all_queues(self, desk: JobDesk) -> None:
        cpu, gpu = [await desk.submit() for _ in range(2)], await desk.submit(queue="gpu")
        for _ in cpu:
            await desk.claim(cpu[0])
        assert await desk.ask(gpu) is None

    async def test_a_queue_at_its_limit_starts_nothing(self, desk: JobDesk) -> None:
        jobs = [await desk.submit(queue="gpu", tenant=tenant) for tenant in ("one", "two")]
        first = (await desk.claim(jobs[0])).job
        assert await desk.ask(jobs[1]) is None
        await _end(desk, first)
        assert (await desk.claim(jobs[1])).job.tenant == "two"

    async def test_the_doorbell_that_came_too_early_is_rung_again_when_there_is_room(self, desk: JobDesk) -> None:
        jobs = [await desk.submit(queue="gpu") for _ in range(3)]
        first = (await desk.claim(jobs[0])).job
        assert await desk.ask(jobs[1]) is None
        assert await desk.ask(jobs[2]) is None
        desk.doorbells.clear()
        await _end(desk, first)
        (doorbell,) = desk.doorbells
        assert doorbell.queue == "gpu"
        assert (await desk.get(await desk.ledger.get(doorbell.job_id))).state is State.QUEUED

    async def test_a_job_that_ends_in_one_queue_makes_room_in_another(self, desk: JobDesk) -> None:
        cpu = [await desk.submit() for _ in range(2)]
        gpu = await desk.submit(queue="gpu")
        held = [(await desk.claim(cpu[0])).job for _ in range(2)]
        assert await desk.ask(gpu) is None
        desk.doorbells.clear()
        await _end(desk, held[0])
        assert [doorbell.queue for doorbell in desk.doorbells] == ["gpu"]

    async def test_an_end_rings_nobody_if_no_doorbell_was_lost(self, desk: JobDesk) -> None:
        jobs = [await desk.submit() for _ in range(2)]
        held = (await desk.claim(jobs[0])).job
        desk.doorbells.clear()
        await _end(desk, held)
        assert desk.doorbells == []

    async def test_a_higher_limit_rings_for_those_that_it_lets_in(self, desk: JobDesk) -> None:
        jobs = [await desk.submit() for _ in range(4)]
        for _ in range(2):
            await desk.claim(jobs[0])
        for _ in range(2):
            assert await desk.ask(jobs[0]) is None
        desk.doorbells.clear()
        await desk.tenants.update("default", {"max_running_jobs": 3})
        assert len(desk.doorbells) == 2
        assert await desk.ask(jobs[0]) is not None
        assert await desk.ask(jobs[0]) is None


async def test_a_tenant_may_have_only_so_many_jobs_waiting(database: Database) -> None:
    desk = JobDesk(database, bounds=Bounds(max_waiting_jobs=2))
    first = await desk.submit("request-1")
    await desk.submit(queue="gpu")
    with pytest.raises(ResourceExhausted, match="has 2 jobs waiting and may have 2") as caught:
        await desk.submit()
    assert caught.value.retry_after
    assert await desk.submit("request-1") == first  # one that is known already is answered
    await desk.submit(tenant="other")
    await desk.claim(first)
    await desk.submit()


async def test_a_retry_is_rung_for_when_it_is_due(desk: JobDesk) -> None:
    job = (await desk.claim(await desk.submit())).job
    desk.doorbells.clear()
    async with desk.database.write() as connection:
        await connection.execute(tables.doorbells.delete())
    async with desk.ledger.edit(job.id) as edit:
        edit.enter(State.QUEUED)
        edit.change(retry_time=edit.now + 3_600_000_000)
        edit.ring()
    assert desk.doorbells == []
    assert (await pending(desk.database)).total() == 0  # not due yet
    async with desk.database.read() as connection:
        (row,) = (await connection.execute(tables.doorbells.select())).all()
    assert (row.job_id, row.queue, row.due_time) == (job.id, "cpu", (await desk.get(job)).retry_time)
