"""Nodes that keep failing, and jobs that were lost on a node again and again."""

from __future__ import annotations

import pytest
from sqlalchemy import bindparam, select, update

from modelyard.gateway.attempts import EndCause
from modelyard.gateway.jobs import FailureReason, Job
from modelyard.gateway.nodes import Patience, excluded_until, was_lost_on
from modelyard.gateway.tables import job_attempts, jobs
from support.job_desk import JobDesk, result

PATIENCE = Patience(faults=3, within_s=600, excluded_s=900)
_BAD_ON = select(jobs.c.id).where(was_lost_on(bindparam("node")))


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
        return await excluded_until(connection, nodes or ("a",), PATIENCE)


async def _bad_on(desk: JobDesk, node: str) -> set[str]:
    async with desk.database.read() as connection:
        return set((await connection.execute(_BAD_ON, {"node": node})).scalars())


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


async def test_a_job_that_was_lost_twice_on_a_node_is_bad_there(desk: JobDesk) -> None:
    job = await desk.submit()
    for node in "aba":
        assert await _bad_on(desk, "a") == set()
        claim = await desk.claim(job, f"{node}/1")
        await desk.expire_lease(job)
        await desk.leases.take_back(job.id, ring=True)
        assert claim.job.id == job.id
    assert (await _bad_on(desk, "a"), await _bad_on(desk, "b")) == ({job.id}, set())


async def test_a_job_that_was_given_back_twice_on_a_node_is_not(desk: JobDesk) -> None:
    job = await desk.submit()
    for attempt in (1, 2):
        await desk.claim(job, "a/1")
        await desk.finishing.release(job.id, attempt, EndCause.PREEMPTED, "")
    assert await _bad_on(desk, "a") == set()
