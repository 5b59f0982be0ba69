"""Removal of checkpoints: nothing that is wanted, everything else once, whatever dies in between."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from sqlalchemy import func, select, text, update

from modelyard.core.database import Database
from modelyard.core.errors import Conflict, StaleAttempt, Unavailable, WrongState
from modelyard.gateway import checkpoints
from modelyard.gateway.checkpoints import Checkpoint
from modelyard.gateway.jobs import Job
from modelyard.gateway.removal import Removal
from modelyard.gateway.reports import Saved
from modelyard.gateway.tables import job_checkpoints
from support.job_desk import JobDesk, result, saved
from support.waiting import eventually


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

    async def find_blob(self, digest: str) -> str | None:
        """See `removal.BlobStore`."""
        if self.is_away:
            raise Unavailable("the registry is away")
        return None if digest[0] in self.asked else "etag"

    async def delete_blob(self, digest: str, etag: str) -> bool:
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


async def _checkpoint(desk: JobDesk, job: Job) -> str | None:
    """First letter of the digest of the job's newest checkpoint."""
    checkpoint = (await desk.get(job)).checkpoint
    return None if checkpoint is None else checkpoint.digest[0]


async def _make_due(desk: JobDesk) -> None:
    """The time is over for which a blob belongs to the process that removes it."""
    async with desk.database.write() as connection:
        removable = job_checkpoints.c.remove_time.is_not(None)
        await connection.execute(update(job_checkpoints).where(removable).values(remove_time=1))


async def _ended(desk: JobDesk, *updates: Saved) -> Job:
    """A job that saved these and succeeded."""
    job = await desk.claimed()
    await desk.report(job.id, 1, 1, updates)
    return await desk.finishing.succeed(job.id, 1, result())


async def test_checkpoints_of_an_ended_job_go(desk: JobDesk, store: MemoryStore) -> None:
    removed: list[None] = []
    await _ended(desk, saved(100, "a"), saved(200, "b"), saved(300, "c"))
    await Removal(desk.database, store, on_removed=lambda: removed.append(None)).remove_due()
    assert sorted(store.asked) == ["a", "b", "c"]
    assert (await _rows(desk), len(removed)) == (0, 3)


async def test_those_of_a_running_job_stay_but_for_old_ones(desk: JobDesk, store: MemoryStore) -> None:
    job = await desk.claimed()
    await desk.report(job.id, 1, 1, [saved(100, "a"), saved(200, "b"), saved(300, "c")])
    await Removal(desk.database, store).remove_due()
    assert (store.asked, await _rows(desk)) == (["a"], 2)


async def test_one_that_is_kept_for_a_while_is_not_due(desk: JobDesk, store: MemoryStore) -> None:
    job = await desk.claimed()
    await desk.report(job.id, 1, 1, [saved(100, "a")])
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
    await desk.report(running.id, 1, 1, [saved(100, "a")])
    await _ended(desk, saved(100, "a"), saved(200, "b"))
    removal = Removal(desk.database, store)
    await removal.remove_due()
    assert store.asked == ["b"]
    await desk.finishing.succeed(running.id, 1, result())
    await removal.remove_due()
    assert (store.asked, await _rows(desk)) == (["b", "a"], 0)


async def test_a_checkpoint_that_is_announced_stays_while_another_job_with_the_same_ends(
    desk: JobDesk, store: MemoryStore
) -> None:
    job = await desk.claimed()
    await desk.reports.announce(job.id, 1, saved(100, "a"))  # and now its worker finds the blob in the store
    await _ended(desk, saved(100, "a"))
    removal = Removal(desk.database, store)
    await removal.remove_due()
    assert (store.asked, await _rows(desk)) == ([], 1)
    await desk.reports.report(job.id, 1, 1, [saved(100, "a")])
    assert await _checkpoint(desk, job) == "a"
    await removal.remove_due()
    assert (store.asked, await _rows(desk)) == ([], 1)


async def test_what_is_just_being_removed_cannot_be_announced_and_can_afterwards(
    desk: JobDesk, store: MemoryStore
) -> None:
    await _ended(desk, saved(100, "a"))
    store.held = asyncio.Event()
    removing = asyncio.create_task(Removal(desk.database, store).remove_due())
    await store.reached.wait()
    job = await desk.claimed()
    before = await desk.get(job)
    with pytest.raises(WrongState) as refused:
        await desk.reports.announce(job.id, 1, saved(100, "a"))
    assert (refused.value.retry_after, refused.value.metadata["state"]) == (1.0, "REMOVING")
    assert await desk.get(job) == before
    store.held.set()
    await removing
    await desk.report(job.id, 1, 1, [saved(100, "a")])
    assert await _checkpoint(desk, job) == "a"


async def test_a_removal_that_its_process_left_unfinished_holds_announcements_off_until_another_has_done_it(
    desk: JobDesk, store: MemoryStore
) -> None:
    await _ended(desk, saved(100, "a"))
    store.killed_after = True
    with pytest.raises(Killed):
        await Removal(desk.database, store).remove_due()
    store.killed_after = False
    job = await desk.claimed()
    with pytest.raises(WrongState):
        await desk.reports.announce(job.id, 1, saved(100, "a"))
    await _make_due(desk)
    await Removal(desk.database, store).remove_due()
    await desk.reports.announce(job.id, 1, saved(100, "a"))


async def test_a_checkpoint_that_was_not_announced_is_not_relied_on_and_goes(desk: JobDesk, store: MemoryStore) -> None:
    job = await desk.claimed()
    await desk.report(job.id, 1, 1, [saved(50, "z")])
    assert (await desk.reports.report(job.id, 1, 2, [saved(100, "a")])).updates_received == 2
    assert await _checkpoint(desk, job) == "z"
    await Removal(desk.database, store).remove_due()
    assert store.asked == ["a"]


@pytest.mark.parametrize("end", ["newer", "success", "next attempt"])
async def test_what_was_announced_and_never_reported_goes_when_the_job_is_past_it(
    desk: JobDesk, store: MemoryStore, end: str
) -> None:
    job, removal = await desk.claimed(), Removal(desk.database, store)
    for _ in range(2):  # the answer may be lost
        await desk.reports.announce(job.id, 1, saved(100, "a"))
    await removal.remove_due()
    assert (store.asked, await _rows(desk)) == ([], 1)
    if end == "newer":
        await desk.report(job.id, 1, 1, [saved(200, "b")])
    elif end == "success":
        await desk.finishing.succeed(job.id, 1, result())
    else:
        await desk.expire_lease(job)
        await desk.claim(job)
        await desk.report(job.id, 2, 1, [saved(50, "b")])
    await removal.remove_due()
    assert store.asked == ["a"]


async def test_an_announcement_of_the_next_attempt_outlives_that_of_the_one_before(
    desk: JobDesk, store: MemoryStore
) -> None:
    job = await desk.claimed()
    await desk.reports.announce(job.id, 1, saved(100, "a"))
    await desk.expire_lease(job)
    await desk.claim(job)
    await desk.reports.announce(job.id, 2, saved(100, "a"))
    await desk.report(job.id, 2, 1, [saved(50, "b")])
    await Removal(desk.database, store).remove_due()
    assert store.asked == []
    await desk.reports.report(job.id, 2, 2, [saved(100, "a")])
    assert await _checkpoint(desk, job) == "a"


async def test_a_stale_attempt_announces_nothing(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.expire_lease(job)
    await desk.claim(job)
    with pytest.raises(StaleAttempt):
        await desk.reports.announce(job.id, 1, saved(100, "a"))
    assert await _rows(desk) == 0


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)  # SQLite has one writer at a time
async def test_a_removal_waits_for_an_announcement_that_is_not_committed_yet(desk: JobDesk, store: MemoryStore) -> None:
    await _ended(desk, saved(100, "a"))
    job = await desk.claimed()
    removal = Removal(desk.database, store)

    async def has_come() -> bool:
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        async with desk.database.read() as connection:
            return bool((await connection.execute(waiting)).scalar_one() or store.asked)

    async with desk.ledger.edit(job.id) as edit:
        checkpoint = Checkpoint(attempt=1, epoch=1, step=100, digest="a" * 64, size_bytes=1, create_time=edit.now)
        await checkpoints.announce(edit.connection, job.id, checkpoint)
        removing = asyncio.create_task(removal.remove_due())
        await eventually(has_come)
    await removing
    assert (store.asked, await _rows(desk)) == ([], 1)


async def _is_marked(database: Database) -> bool:
    """Whether some blob is just being removed."""
    async with database.read() as connection:
        return (await connection.execute(select(func.count()).where(job_checkpoints.c.removing))).scalar_one() > 0


@dataclass
class ForgetfulStore:
    """A store that really has blobs and loses them; every call of it takes its time."""

    database: Database
    blobs: dict[str, str] = field(default_factory=dict)
    """Their etags by digest."""
    written: int = 0
    """How many blobs there have been."""
    asleep: asyncio.Event | None = None
    """The first call that is made with a mark set sleeps on its way until this is set."""

    async def find_blob(self, digest: str) -> str | None:
        """See `removal.BlobStore`."""
        await self._sleep()
        await self.pause()
        return self.blobs.get(digest)

    async def delete_blob(self, digest: str, etag: str) -> bool:
        """See `removal.BlobStore`."""
        await self._sleep()
        await self.pause(20)  # or it would be over before an announcement is
        if self.blobs.get(digest, etag) != etag:
            raise Conflict("another one")
        existed = self.blobs.pop(digest, None) is not None
        await self.pause()
        return existed

    async def _sleep(self) -> None:
        if self.asleep is not None and await _is_marked(self.database):
            asleep, self.asleep = self.asleep, None
            await asleep.wait()

    async def upload(self, digest: str) -> None:
        """What is there is not sent again."""
        await self.pause()
        if digest not in self.blobs:
            await self.pause()
            self.written += 1
            self.blobs[digest] = f"etag {self.written}"
        await self.pause()

    async def pause(self, most: int = 3) -> None:
        """For as long as none, one or some transactions."""
        for _ in range(random.randint(0, most)):
            async with self.database.read() as connection:
                await connection.execute(select(1))


async def _save(desk: JobDesk, store: ForgetfulStore, job: Job, letter: str) -> None:
    """What a worker does with a checkpoint."""
    checkpoint = saved(100, letter)

    async def announced() -> bool:
        with suppress(WrongState):
            await desk.reports.announce(job.id, 1, checkpoint)
            return True
        return False

    await store.pause()
    await eventually(announced)
    await store.upload(checkpoint.digest)
    await desk.reports.report(job.id, 1, 1, [checkpoint])


async def _remove(removal: Removal, store: ForgetfulStore) -> None:
    """What a gateway does, some times over."""
    for _ in range(3):
        await store.pause()
        await removal.remove_due()


async def test_saving_and_removing_at_the_same_time_never_lose_a_blob(desk: JobDesk) -> None:
    store = ForgetfulStore(desk.database)
    removals = [Removal(desk.database, store) for _ in range(2)]
    for letter in "abcdefabcdef":
        ended, job = await desk.claimed(), await desk.claimed()
        await _save(desk, store, ended, letter)
        await desk.finishing.succeed(ended.id, 1, result())
        await asyncio.gather(_save(desk, store, job, letter), *(_remove(removal, store) for removal in removals))
        assert await _checkpoint(desk, job) == letter
        assert letter * 64 in store.blobs
        await desk.finishing.succeed(job.id, 1, result())


async def test_a_process_that_wakes_up_late_does_not_remove_what_came_after(desk: JobDesk) -> None:
    wake = asyncio.Event()
    store = ForgetfulStore(desk.database, asleep=wake)
    ended, job = await desk.claimed(), await desk.claimed()
    await _save(desk, store, ended, "a")
    await desk.finishing.succeed(ended.id, 1, result())
    sleeping = asyncio.create_task(Removal(desk.database, store).remove_due())
    await eventually(lambda: _is_marked(desk.database))
    await _make_due(desk)
    await Removal(desk.database, store).remove_due()
    assert store.blobs == {}
    await _save(desk, store, job, "a")
    wake.set()
    await sleeping
    assert await _checkpoint(desk, job) == "a"
    assert store.blobs == {"a" * 64: "etag 2"}
    assert await _rows(desk) == 1


async def test_a_blob_that_comes_back_while_it_is_being_removed_goes_later_and_is_not_announced_before(
    desk: JobDesk,
) -> None:
    wake = asyncio.Event()
    store = ForgetfulStore(desk.database, asleep=wake)
    await _save(desk, store, ended := await desk.claimed(), "a")
    await desk.finishing.succeed(ended.id, 1, result())
    removing = asyncio.create_task(Removal(desk.database, store).remove_due())
    await eventually(lambda: _is_marked(desk.database))
    store.blobs["a" * 64] = "of a worker whose attempt is over"
    wake.set()
    await removing
    job = await desk.claimed()
    with pytest.raises(WrongState):
        await desk.reports.announce(job.id, 1, saved(100, "a"))
    await _make_due(desk)
    await Removal(desk.database, store).remove_due()
    assert store.blobs == {}
    await desk.reports.announce(job.id, 1, saved(100, "a"))
