"""SQLite in the event loop: statements run there, and neither a locked file nor the disk holds the loop up."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from modelyard.core.sqlite_driver import DBAPI


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one empty table."""
    path = tmp_path / "file.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE numbers (number INTEGER UNIQUE)")
    connection.close()
    return path


@pytest.fixture
def elsewhere(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody else's connection."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    yield connection
    connection.close()


@pytest.fixture
async def engine(path: Path) -> AsyncIterator[AsyncEngine]:
    engine = engine_for(path, timeout=60)
    yield engine
    await engine.dispose()


def engine_for(path: Path, timeout: float) -> AsyncEngine:
    return create_async_engine(f"sqlite+aiosqlite:///{path}", module=DBAPI, connect_args={"timeout": timeout})


async def run(connection: AsyncConnection, statement: str) -> None:
    await connection.exec_driver_sql(statement)


async def numbers(connection: AsyncConnection) -> list[int]:
    return list((await connection.execute(text("SELECT number FROM numbers ORDER BY number"))).scalars())


async def is_waiting(task: asyncio.Task[None]) -> bool:
    done, _ = await asyncio.wait({task}, timeout=0.05)
    return not done


async def test_statements_run_in_the_thread_that_awaits_them(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        driver.connection.create_function("thread", 0, threading.get_ident)
        assert (await connection.execute(text("SELECT thread()"))).scalar_one() == threading.get_ident()


async def test_what_is_written_is_there_after_the_commit_and_not_after_a_rollback(
    engine: AsyncEngine, elsewhere: sqlite3.Connection
) -> None:
    async with engine.connect() as connection:
        await run(connection, "BEGIN IMMEDIATE")
        await connection.execute(text("INSERT INTO numbers VALUES (:number)"), [{"number": 1}, {"number": 2}])
        await connection.commit()
        await run(connection, "BEGIN IMMEDIATE")
        result = await connection.execute(text("DELETE FROM numbers"))
        assert result.rowcount == 2
        await connection.rollback()
        assert await numbers(connection) == [1, 2]
    assert elsewhere.execute("SELECT number FROM numbers").fetchall() == [(1,), (2,)]


async def test_a_writer_elsewhere_is_waited_for_without_holding_up_the_loop(
    engine: AsyncEngine, elsewhere: sqlite3.Connection
) -> None:
    elsewhere.execute("BEGIN IMMEDIATE")
    async with engine.connect() as connection:
        beginning = asyncio.create_task(run(connection, "BEGIN IMMEDIATE"))
        assert await is_waiting(beginning)
        elsewhere.execute("ROLLBACK")  # never reached if the wait held up this thread
        await beginning
        await run(connection, "INSERT INTO numbers VALUES (1)")
        await connection.commit()
    assert elsewhere.execute("SELECT number FROM numbers").fetchall() == [(1,)]


async def test_a_read_waits_for_whoever_has_the_whole_file_though_it_is_in_this_loop(engine: AsyncEngine) -> None:
    async with engine.connect() as one, engine.connect() as other:
        await run(one, "BEGIN EXCLUSIVE")
        reading = asyncio.create_task(run(other, "SELECT number FROM numbers"))
        assert await is_waiting(reading)
        await one.rollback()
        await reading


async def test_a_new_connection_too(engine: AsyncEngine) -> None:
    async with engine.connect() as one:
        await run(one, "PRAGMA journal_mode = DELETE")
        await run(one, "BEGIN EXCLUSIVE")
        switching = asyncio.create_task(_switch(engine))
        assert await is_waiting(switching)
        await one.rollback()
        await switching


async def _switch(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await run(connection, "PRAGMA synchronous = FULL")
        await run(connection, "PRAGMA journal_mode = WAL")


async def test_patience_ends(path: Path, elsewhere: sqlite3.Connection) -> None:
    engine = engine_for(path, timeout=0.05)
    elsewhere.execute("BEGIN IMMEDIATE")
    async with engine.connect() as connection:
        with pytest.raises(OperationalError, match="locked"):
            await run(connection, "BEGIN IMMEDIATE")
        elsewhere.execute("ROLLBACK")
        await run(connection, "BEGIN IMMEDIATE")
        await connection.rollback()
    await engine.dispose()


async def test_who_waits_may_be_cancelled(engine: AsyncEngine, elsewhere: sqlite3.Connection) -> None:
    elsewhere.execute("BEGIN IMMEDIATE")

    async def write() -> None:
        async with engine.connect() as connection:
            await run(connection, "BEGIN IMMEDIATE")

    writing = asyncio.create_task(write())
    assert await is_waiting(writing)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    elsewhere.execute("ROLLBACK")
    async with engine.connect() as connection:
        await run(connection, "BEGIN IMMEDIATE")
        await connection.rollback()


async def test_errors_come_as_they_are(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        with pytest.raises(OperationalError, match="no such table: letters"):
            await run(connection, "INSERT INTO letters VALUES ('a')")
        await run(connection, "INSERT INTO numbers VALUES (1)")
        with pytest.raises(IntegrityError, match="UNIQUE"):
            await run(connection, "INSERT INTO numbers VALUES (1)")
        assert await numbers(connection) == [1]


async def test_a_commit_that_is_cancelled_is_done_before_its_caller_goes_on(
    engine: AsyncEngine, elsewhere: sqlite3.Connection
) -> None:
    """Somebody who reads keeps the commit waiting: without write-ahead logging it needs the file alone."""

    async def write() -> None:
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            driver.connection.execute("PRAGMA busy_timeout = 60000")
            await run(connection, "BEGIN IMMEDIATE")
            await run(connection, "INSERT INTO numbers VALUES (1)")
            await connection.commit()

    elsewhere.execute("BEGIN")
    assert elsewhere.execute("SELECT number FROM numbers").fetchall() == []
    writing = asyncio.create_task(write())
    assert await is_waiting(writing)
    writing.cancel()
    assert await is_waiting(writing)
    elsewhere.execute("ROLLBACK")
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert elsewhere.execute("SELECT number FROM numbers").fetchall() == [(1,)]
