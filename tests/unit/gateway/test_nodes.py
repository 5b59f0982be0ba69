"""Nodes that keep failing, and jobs that were lost on a node again and again."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, func, select, update

from modelyard.core.database import Database
from modelyard.gateway.attempts import EndCause
from modelyard.gateway.explanations import Kind
from modelyard.gateway.jobs import FailureReason, Job
from modelyard.gateway.leases import Leases
from modelyard.gateway.nodes import NodePatience, excluded_until
from modelyard.gateway.presence import Presence, WorkerState
from modelyard.gateway.retries import Retries
from modelyard.gateway.tables import doorbells, job_attempts, jobs, spent_doorbells
from support.job_desk import LEASE_S, JobDesk, result

PATIENCE = NodePatience(faults=3, within_s=600, excluded_s=900)


async def _claimed(desk: JobDesk, node: str) -> Job:
    """Whichever job it is whose turn it is, held by a worker of this node."""
    return (await desk.claim(await desk.submit(), f"{node}/1")).job


async def _fault(desk: JobDesk, node: str) -> Job:
    """An attempt on this node ends by a fault of the platform."""
    job = await _claimed(desk, node)
    return await desk.finishing.release(job.id, job.attempt, EndCause.WORKER_FAULT, "the disk is full")


async def _lose(desk: JobDesk, node: str) -> None:
    """The same by a worker that stops reporting."""
    await desk.expire_lease(await _claimed(desk, node))
    assert await desk.leases.reap() == 1


async def _succeed(desk: JobDesk, node: str) -> None:
    job = await _claimed(desk, node)
    await desk.finishing.succeed(job.id, job.attempt, result())


async def _age(desk: JobDesk, seconds: float) -> None:
    """Makes all ends so much older."""
    async with desk.database.write() as connection:
        earlier = job_attempts.c.end_time - round(seconds * 1e6)
        await connection.execute(update(job_attempts).values(end_time=earlier))


async def _excluded(desk: JobDesk, *nodes: str) -> dict[str, int]:
    async with desk.database.read() as connection:
        found = await excluded_until(connection, PATIENCE)
        return {node: until for node, until in found.items() if node in (nodes or ("a",))}


async def test_a_node_that_keeps_failing_is_excluded_for_a_while(desk: JobDesk) -> None:
    for _ in range(2):
        await _fault(desk, "a")
    assert await _excluded(desk) == {}
    last = await _fault(desk, "a")
    assert await _excluded(desk, "a", "b", "") == {"a": last.update_time + 900_000_000}
    await _age(desk, 899)
    assert await _excluded(desk)
    await _age(desk, 2)
    assert await _excluded(desk) == {}


async def test_lost_workers_count_as_faults(desk: JobDesk) -> None:
    for _ in range(3):
        await _lose(desk, "a")
    assert await _excluded(desk)


async def test_faults_far_apart_do_not_count(desk: JobDesk) -> None:
    for _ in range(2):
        await _fault(desk, "a")
        await _age(desk, 301)
    await _fault(desk, "a")
    assert await _excluded(desk) == {}


@pytest.mark.parametrize("earlier_faults", [0, 1, 2, 3])
async def test_a_success_since_the_first_of_them_speaks_for_the_node(desk: JobDesk, earlier_faults: int) -> None:
    for _ in range(earlier_faults):
        await _fault(desk, "a")
    await _succeed(desk, "a")
    for _ in range(3 - earlier_faults):
        await _fault(desk, "a")
    assert bool(await _excluded(desk)) == (earlier_faults == 0)


async def test_what_is_not_the_nodes_fault_does_not_count(desk: JobDesk) -> None:
    for _ in range(3):
        job = await _claimed(desk, "a")
        await desk.finishing.fail(job.id, job.attempt, FailureReason.USER_CODE, "bad")
        job = await _claimed(desk, "a")
        await desk.finishing.release(job.id, job.attempt, EndCause.WORKER_STOPPED, "draining")
    assert await _excluded(desk) == {}


async def test_faults_on_other_nodes_do_not_count(desk: JobDesk) -> None:
    for node in "abcabc":
        await _fault(desk, node)
    assert await _excluded(desk, "a", "b", "c") == {}


async def _report(desk: JobDesk, *nodes: str, state: WorkerState = WorkerState.IDLE) -> None:
    """A worker of each of these nodes says that it is there."""
    for node in nodes:
        await desk.workers.report(Presence(f"{node}/1", node, ("cpu",), state, "", "cpu"))


async def _lose_on(desk: JobDesk, job: Job, nodes: str) -> None:
    """The job is lost on each of these nodes in turn, and may be tried again at once."""
    for node in nodes:
        assert (await desk.claim(job, f"{node}/1")).job.id == job.id
        await desk.expire_lease(job)
        await desk.leases.take_back(job.id, ring=True)
        await desk.end_wait(job)


async def _due(desk: JobDesk) -> int:
    """Doorbells that ring in a moment, for whoever comes."""
    query = select(func.count()).select_from(doorbells).where(doorbells.c.tries == 0)
    async with desk.database.read() as connection:
        return (await connection.execute(query)).scalar_one()


async def _spent(desk: JobDesk) -> int:
    """Doorbells that ring when a worker lets a job go."""
    async with desk.database.read() as connection:
        return (await connection.execute(select(func.sum(spent_doorbells.c.count)))).scalar_one() or 0


async def _empty_queue(desk: JobDesk) -> None:
    """Cancels everything that waits."""
    async with desk.database.read() as connection:
        waiting = list((await connection.execute(select(jobs.c.id).where(jobs.c.state == "QUEUED"))).scalars())
    for job_id in waiting:
        await desk.cancel(await desk.ledger.get(job_id))


@pytest.fixture
async def failing(desk: JobDesk) -> JobDesk:
    """A desk whose node `a` is excluded, with nothing in its queue."""
    for _ in range(3):
        await _fault(desk, "a")
    await _empty_queue(desk)
    async with desk.database.write() as connection:
        await connection.execute(delete(doorbells))
    return desk


async def test_an_excluded_node_gets_no_job_and_the_doorbell_goes_to_one_that_is_idle(failing: JobDesk) -> None:
    job = await failing.submit()
    await _report(failing, "a", "b")
    assert await failing.ask(job, "a/1") is None
    assert (await _due(failing), await _spent(failing)) == (1, 0)
    claim = await failing.ask(job, "b/1")
    assert claim is not None
    assert claim.job.id == job.id


async def test_if_the_others_are_busy_it_rings_when_one_of_them_is_done(failing: JobDesk) -> None:
    held = (await failing.claim(await failing.submit(), "b/1")).job
    await _report(failing, "b", state=WorkerState.BUSY)
    job = await failing.submit()
    assert await failing.ask(job, "a/1") is None
    assert (await _due(failing), await _spent(failing)) == (0, 1)
    failing.doorbells.clear()
    await failing.finishing.succeed(held.id, 1, result())
    assert [doorbell.job_id for doorbell in failing.doorbells] == [job.id]


@pytest.mark.parametrize("others", ["", "a"])
async def test_the_only_node_there_is_goes_on_working(failing: JobDesk, others: str) -> None:
    await _report(failing, *others)
    assert await failing.ask(await failing.submit(), "a/1") is not None


async def test_a_node_that_is_being_stopped_is_no_other_node(failing: JobDesk) -> None:
    await _report(failing, "b", state=WorkerState.STOPPING)
    assert await failing.ask(await failing.submit(), "a/1") is not None


async def test_if_all_nodes_keep_failing_all_go_on_working(failing: JobDesk) -> None:
    for _ in range(3):
        await _fault(failing, "b")
    await _empty_queue(failing)
    await _report(failing, "a", "b")
    assert await failing.ask(await failing.submit(), "a/1") is not None
    assert await failing.ask(await failing.submit(), "b/1") is not None


async def test_exclusions_are_shown(failing: JobDesk) -> None:
    await _report(failing, "a")
    await _report(failing, "b", state=WorkerState.BUSY)
    first, second = await failing.workers.visible(tenant=None)
    assert first.excluded_until is not None
    assert second.excluded_until is None
    explanation = await failing.explanations.explain((await failing.submit()).id, tenant=None)
    assert [reason.kind for reason in explanation.reasons] == [Kind.NODES_EXCLUDED]


async def test_a_job_that_was_lost_twice_on_a_node_goes_to_another_one(desk: JobDesk) -> None:
    job = await desk.submit()
    await _lose_on(desk, job, "aa")
    await _report(desk, "a", "b")
    assert await desk.ask(job, "a/1") is None
    assert await _due(desk) >= 1
    claim = await desk.ask(job, "b/1")
    assert claim is not None
    assert claim.job.id == job.id


async def test_the_node_gets_other_jobs_meanwhile(desk: JobDesk) -> None:
    job = await desk.submit()
    await _lose_on(desk, job, "aa")
    await _report(desk, "a", "b")
    other = await desk.submit()
    claim = await desk.ask(job, "a/1")
    assert claim is not None
    assert claim.job.id == other.id


async def test_once_on_each_of_two_nodes_is_not_twice_on_one(desk: JobDesk) -> None:
    job = await desk.submit()
    await _lose_on(desk, job, "ab")
    await _report(desk, "a", "b")
    assert await desk.ask(job, "a/1") is not None


async def test_without_another_node_it_goes_where_it_was_lost(desk: JobDesk) -> None:
    job = await desk.submit()
    await _lose_on(desk, job, "aa")
    await _report(desk, "a")
    assert await desk.ask(job, "a/1") is not None


async def test_a_job_that_was_lost_on_all_nodes_goes_to_any(database: Database) -> None:
    desk = JobDesk(database)
    desk.leases = Leases(desk.ledger, Retries(infrastructure_retries=9, delay_s=1), lease_s=LEASE_S)
    desk.leases.end_grace()
    job = await desk.submit()
    await _lose_on(desk, job, "aabb")
    await _report(desk, "a", "b")
    assert await desk.ask(job, "a/1") is not None


async def test_a_job_that_was_given_back_on_a_node_may_come_again(desk: JobDesk) -> None:
    job = await desk.submit()
    for attempt in (1, 2):
        await desk.claim(job, "a/1")
        await desk.finishing.release(job.id, attempt, EndCause.PREEMPTED, "")
    await _report(desk, "a", "b")
    assert await desk.ask(job, "a/1") is not None
