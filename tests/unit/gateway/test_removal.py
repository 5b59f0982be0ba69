"""Removal of checkpoints: nothing that is wanted, everything else once, whatever dies in between."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from sqlalchemy import func, select, update

from modelyard.core.errors import Unavailable
from modelyard.gateway.jobs import Job
from modelyard.gateway.removal import Removal
from modelyard.gateway.reports import Saved
from modelyard.gateway.tables import job_checkpoints
from support.job_desk import JobDesk, result, saved


class Killed(BaseException):
    """The process ends here."""


@dataclass
class MemoryStore:
    """An artifact store that can be away, or whose caller dies."""

    asked: list[str] = field(default_factory=list)
    """First letter of each digest that it was asked to remove."""
    is_away: bool = False
    killed_before: bool = False
    killed_after: bool = False
    held: asyncio.Event | None = None
    """The answer waits for this."""
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def delete_blob(self, digest: str) -> bool:
        """See `removal.BlobStore`."""
        if self.is_away:
            raise Unavailable("the registry is away")
        if self.killed_before:
            raise Killed
        existed = digest[0] not in self.asked
        self.asked.append(digest[0])
        self.reached.set()
        if self.held is not None:
            await self.held.wait()
        if self.killed_after:
            raise Killed
        return existed


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def _rows(desk: JobDesk) -> int:
    async with desk.database.read() as connection:
        return (await connection.execute(select(func.count()).select_from(job_checkpoints))).scalar_one()


async def _make_due(desk: JobDesk) -> None:
    """The time is over for which a blob belongs to the process that removes it."""
    async with desk.database.write() as connection:
        removable = job_checkpoints.c.remove_time.is_not(None)
        await connection.execute(update(job_checkpoints).where(removable).values(remove_time=1))


async def _ended(desk: JobDesk, *updates: Saved) -> Job:
    """A job that saved these and succeeded."""
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, updates)
    return await desk.finishing.succeed(job.id, 1, result())


async def test_checkpoints_of_an_ended_job_go(desk: JobDesk, store: MemoryStore) -> None:
    removed: list[None] = []
    await _ended(desk, saved(100, "a"), saved(200, "b"), saved(300, "c"))
    await Removal(desk.database, store, on_removed=lambda: removed.append(None)).remove_due()
    assert sorted(store.asked) == ["a", "b", "c"]
    assert (await _rows(desk), len(removed)) == (0, 3)


async def test_those_of_a_running_job_stay_but_for_old_ones(desk: JobDesk, store: MemoryStore) -> None:
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [saved(100, "a"), saved(200, "b"), saved(300, "c")])
    await Removal(desk.database, store).remove_due()
    assert (store.asked, await _rows(desk)) == (["a"], 2)


async def test_one_that_is_kept_for_a_while_is_not_due(desk: JobDesk, store: MemoryStore) -> None:
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [saved(100, "a")])
    await desk.cancel(job)
    await desk.finishing.cancel(job.id, 1)
    removal = Removal(desk.database, store)
    await removal.remove_due()
    assert store.asked == []
    await _make_due(desk)
    await removal.remove_due()
    assert store.asked == ["a"]


async def test_with_the_store_away_they_wait(desk: JobDesk, store: MemoryStore) -> None:
    await _ended(desk, saved(100, "a"))
    store.is_away = True
    removal = Removal(desk.database, store)
    assert not await removal.remove_due()
    store.is_away = False
    await _make_due(desk)
    await removal.remove_due()
    assert (store.asked, await _rows(desk)) == (["a"], 0)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_whatever_dies_another_process_goes_on(desk: JobDesk, store: MemoryStore, moment: str) -> None:
    await _ended(desk, saved(100, "a"), saved(200, "b"))
    setattr(store, f"killed_{moment}", True)
    with pytest.raises(Killed):
        await Removal(desk.database, store).remove_due()
    setattr(store, f"killed_{moment}", False)
    await Removal(desk.database, store).remove_due()
    assert await _rows(desk) == 1  # the first one belongs to the dead process for a while
    await _make_due(desk)
    await Removal(desk.database, store).remove_due()
    assert (set(store.asked), await _rows(desk)) == ({"a", "b"}, 0)


async def test_replicas_remove_each_once(desk: JobDesk, store: MemoryStore) -> None:
    await _ended(desk, *(saved(step, letter) for step, letter in enumerate("abcdef")))
    await asyncio.gather(*(Removal(desk.database, store).remove_due() for _ in range(4)))
    assert sorted(store.asked) == list("abcdef")


async def test_a_blob_that_another_job_wants_stays(desk: JobDesk, store: MemoryStore) -> None:
    running = await desk.claimed()
    await desk.reports.report(running.id, 1, 1, [saved(100, "a")])
    await _ended(desk, saved(100, "a"), saved(200, "b"))
    removal = Removal(desk.database, store)
    await removal.remove_due()
    assert store.asked == ["b"]
    await desk.finishing.succeed(running.id, 1, result())
    await removal.remove_due()
    assert (store.asked, await _rows(desk)) == (["b", "a"], 0)


async def test_a_blob_that_is_just_being_removed_is_not_relied_on(desk: JobDesk, store: MemoryStore) -> None:
    await _ended(desk, saved(100, "a"))
    store.held = asyncio.Event()
    removing = asyncio.create_task(Removal(desk.database, store).remove_due())
    await store.reached.wait()
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [saved(50, "z"), saved(100, "a")])
    store.held.set()
    await removing
    job = await desk.get(job)
    assert job.checkpoint is not None
    assert job.checkpoint.digest == "z" * 64
    assert (await desk.reports.report(job.id, 1, 3, [])).updates_received == 2


async def test_recording_and_removing_at_the_same_time_never_lose_a_blob(desk: JobDesk, store: MemoryStore) -> None:
    for letter in "abcdef":
        await _ended(desk, saved(100, letter))
        job = await desk.claimed()
        await asyncio.gather(
            desk.reports.report(job.id, 1, 1, [saved(100, letter)]), Removal(desk.database, store).remove_due()
        )
        recorded = (await desk.get(job)).checkpoint
        assert recorded is None or letter not in store.asked
