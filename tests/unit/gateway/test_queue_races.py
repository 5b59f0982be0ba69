"""Many workers at several gateways claim and end jobs of several tenants at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter

from modelyard.core.database import Database
from modelyard.gateway.jobs import FailureReason, Job
from modelyard.gateway.scheduling import Queues
from modelyard.gateway.tenants import Bounds
from support.job_desk import JobDesk

QUEUES = Queues(("cpu", "gpu"), {"gpu": 3})
BOUNDS = Bounds(max_running_jobs=4)


class Floor:
    """Where all workers work: what runs, and whether it was ever more than allowed."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.claimed: list[tuple[str, int]] = []

    def begin(self, job: Job) -> None:
        """After the claim is committed: what was let go before is no longer counted, so this is never too high."""
        self.claimed.append((job.id, job.attempt))
        self.running.update([f"tenant {job.tenant}", f"queue {job.queue}"])
        assert self.running[f"tenant {job.tenant}"] <= BOUNDS.max_running_jobs
        assert self.running[f"queue {job.queue}"] <= QUEUES.max_running.get(job.queue, 100)

    def end(self, job: Job) -> None:
        """Before the end is written."""
        self.running.subtract([f"tenant {job.tenant}", f"queue {job.queue}"])


async def _work(desk: JobDesk, bells: asyncio.Queue[Job], floor: Floor) -> None:
    while True:
        claim = await desk.ask(await bells.get())
        if claim is not None:
            floor.begin(claim.job)
            await asyncio.sleep(0)
            floor.end(claim.job)
            await desk.finishing.fail(claim.job.id, claim.job.attempt, FailureReason.DATA, "bad")
        for doorbell in desk.doorbells:
            bells.put_nowait(await desk.ledger.get(doorbell.job_id))
        desk.doorbells.clear()
        bells.task_done()


async def test_every_job_runs_once_within_all_limits_on_no_more_doorbells_than_were_rung(database: Database) -> None:
    desks = [JobDesk(database, queues=QUEUES, bounds=BOUNDS) for _ in range(3)]
    bells: asyncio.Queue[Job] = asyncio.Queue()
    submitted = [
        await desks[0].submit(tenant=f"t{i % 3}", queue=QUEUES.names[i % 2], priority=i % 5) for i in range(36)
    ]
    desks[0].doorbells.clear()
    floor = Floor()
    workers = [asyncio.create_task(_work(desks[i % 3], bells, floor)) for i in range(12)]
    for job in submitted:
        bells.put_nowait(job)
    async with asyncio.timeout(120):
        await bells.join()
    for worker in workers:
        assert not worker.done(), worker.exception()
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert sorted(floor.claimed) == sorted((job.id, 1) for job in submitted)


async def test_submissions_at_the_same_time_do_not_pass_the_limit_together(database: Database) -> None:
    desks = [JobDesk(database, bounds=Bounds(max_waiting_jobs=5)) for _ in range(2)]
    answers = await asyncio.gather(*(desks[i % 2].submit() for i in range(16)), return_exceptions=True)
    assert sum(isinstance(answer, Job) for answer in answers) == 5
