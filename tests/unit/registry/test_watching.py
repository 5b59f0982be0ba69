"""What a watching pod is told, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import update

from modelyard.core.database import Database
from modelyard.core.errors import Unavailable
from modelyard.registry.aliases import Aliases
from modelyard.registry.repetition import Repetition
from modelyard.registry.tables import models, revision
from modelyard.registry.watching import Update, Watch
from support.registry_rows import add_model, caller


@asynccontextmanager
async def running(database: Database, *, interval_s: float = 0.02, heartbeat_s: float = 60) -> AsyncIterator[Watch]:
    watch = Watch(database, interval_s=interval_s, heartbeat_s=heartbeat_s, stopping=asyncio.Event())
    await watch.load()
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def aliases(database: Database, on_served: Callable[[], None] = lambda: None) -> Aliases:
    return Aliases(database, Repetition(database), on_served)


def served(message: Update) -> dict[str, dict[str, int]]:
    return {model.model_id: dict(model.aliases) for model in message.models}


async def test_the_first_message_is_everything_even_if_that_is_nothing(database: Database) -> None:
    async with running(database) as watch:
        message = await anext(watch.updates(0))
    assert (message.revision, message.snapshot, list(message.models)) == (0, True, [])


async def test_a_pod_hears_at_once_of_a_change_in_this_process(database: Database) -> None:
    await add_model(database, "m", 2)
    async with running(database, interval_s=3600) as watch:
        updates = watch.updates(0)
        await anext(updates)
        await aliases(database, watch.poke).set(caller(), "m", "live", 2)
        message = await anext(updates)
    assert (message.snapshot, served(message)) == (False, {"m": {"live": 2}})
    assert set(message.models[0].versions) == {2}


async def test_a_pod_hears_of_a_change_by_another_replica(database: Database) -> None:
    await add_model(database, "m", 2)
    async with running(database) as watch:
        updates = watch.updates(0)
        await anext(updates)
        await aliases(database).set(caller(), "m", "live", 1)
        assert served(await anext(updates)) == {"m": {"live": 1}}


async def test_a_pod_resumes_after_its_revision(database: Database) -> None:
    for model_id in ("a", "b", "c"):
        await add_model(database, model_id, 1)
        await aliases(database).set(caller(), model_id, "live", 1)
    async with running(database) as watch:
        message = await anext(watch.updates(2))
        nothing = await anext(watch.updates(3))
    assert (message.revision, message.snapshot, served(message)) == (3, False, {"c": {"live": 1}})
    assert (nothing.revision, nothing.snapshot, list(nothing.models)) == (3, False, [])


async def test_a_revision_from_another_time_gets_everything(database: Database) -> None:
    await add_model(database, "m", 1)
    await aliases(database).set(caller(), "m", "live", 1)
    async with running(database) as watch:
        message = await anext(watch.updates(1000))
    assert (message.revision, message.snapshot, served(message)) == (1, True, {"m": {"live": 1}})


async def test_a_model_that_is_no_longer_served_is_told_once_and_not_in_a_snapshot(database: Database) -> None:
    await add_model(database, "m", 1)
    await aliases(database).set(caller(), "m", "live", 1)
    async with running(database) as watch:
        updates = watch.updates(1)
        await anext(updates)
        await aliases(database, watch.poke).delete(caller(), "m", "live")
        message = await anext(updates)
        snapshot = await anext(watch.updates(0))
    assert (served(message), dict(message.models[0].versions)) == ({"m": {}}, {})
    assert list(snapshot.models) == []


async def test_a_slow_pod_hears_the_newest_state_once(database: Database) -> None:
    await add_model(database, "m", 4)
    async with running(database) as watch:
        slow, quick = watch.updates(0), watch.updates(0)
        await anext(slow)
        await anext(quick)
        for version in (1, 2, 3, 4):
            await aliases(database, watch.poke).set(caller(), "m", "live", version)
            assert served(await anext(quick)) == {"m": {"live": version}}
        message = await anext(slow)
    assert (message.revision, served(message)) == (4, {"m": {"live": 4}})


async def test_a_heartbeat_comes_while_nothing_happens(database: Database) -> None:
    async with running(database, heartbeat_s=0.05) as watch:
        updates = watch.updates(0)
        await anext(updates)
        for _ in range(2):
            message = await anext(updates)
            assert (message.revision, message.snapshot, list(message.models)) == (0, False, [])


async def test_a_restored_database_is_told_as_everything(database: Database) -> None:
    for model_id in ("a", "b"):
        await add_model(database, model_id, 1)
        await aliases(database).set(caller(), model_id, "live", 1)
    async with running(database) as watch:
        updates = watch.updates(0)
        await anext(updates)
        async with database.write() as connection:  # as a backup from before b's alias would be
            await connection.execute(update(revision).values(value=1))
            await connection.execute(update(models).where(models.c.id == "b").values(served_revision=None))
            await connection.exec_driver_sql("DELETE FROM model_aliases WHERE model_id = 'b'")
        message = await anext(updates)
    assert (message.revision, message.snapshot, served(message)) == (1, True, {"a": {"live": 1}})


async def test_watching_goes_on_after_the_database_was_away(database: Database) -> None:
    await add_model(database, "m", 1)
    async with running(database) as watch:
        updates = watch.updates(0)
        await anext(updates)
        async with database.write() as connection:
            await connection.exec_driver_sql("ALTER TABLE revision RENAME TO away")
        waiting: asyncio.Task[Update] = asyncio.create_task(anext(updates))  # type: ignore[arg-type]
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
        async with database.write() as connection:
            await connection.exec_driver_sql("ALTER TABLE away RENAME TO revision")
        await aliases(database).set(caller(), "m", "live", 1)
        assert served(await waiting) == {"m": {"live": 1}}


async def test_watching_ends_when_the_process_stops(database: Database) -> None:
    stopping = asyncio.Event()
    watch = Watch(database, interval_s=0.02, heartbeat_s=60, stopping=stopping)
    task = asyncio.create_task(watch.run())
    updates = watch.updates(0)
    await anext(updates)
    waiting: asyncio.Task[Update] = asyncio.create_task(anext(updates))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    stopping.set()
    with pytest.raises(Unavailable) as raised:
        await waiting
    assert raised.value.retry_after is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
