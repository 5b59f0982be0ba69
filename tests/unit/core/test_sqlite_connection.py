"""SQLite in the event loop: short steps run there, what may have to wait does not."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import aiosqlite
import pytest

from modelyard.core.sqlite_connection import connect


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[aiosqlite.Connection]:
    """To a file with one empty table."""
    opened = await connect(str(tmp_path / "file.sqlite"), timeout_s=60)
    await opened.execute("CREATE TABLE numbers (number INTEGER)")
    yield opened
    await opened.close()


async def test_statements_run_in_the_thread_that_awaits_them(connection: aiosqlite.Connection) -> None:
    await connection.create_function("thread", 0, threading.get_ident)
    async with connection.execute("SELECT thread()") as cursor:
        assert await cursor.fetchone() == (threading.get_ident(),)


async def test_a_writer_elsewhere_is_waited_for_without_holding_up_the_loop(
    connection: aiosqlite.Connection, tmp_path: Path
) -> None:
    elsewhere = sqlite3.connect(tmp_path / "file.sqlite", isolation_level=None)
    elsewhere.execute("BEGIN IMMEDIATE")
    beginning = asyncio.create_task(_begin(connection))
    done, _ = await asyncio.wait({beginning}, timeout=0.05)
    assert not done
    elsewhere.execute("ROLLBACK")  # never reached if the wait held up this thread
    await beginning
    await connection.execute("INSERT INTO numbers VALUES (1)")
    await connection.commit()
    assert elsewhere.execute("SELECT number FROM numbers").fetchall() == [(1,)]
    elsewhere.close()


async def test_a_pragma_waits_for_a_connection_of_the_same_loop_without_holding_it_up(
    connection: aiosqlite.Connection, tmp_path: Path
) -> None:
    await connection.execute("BEGIN EXCLUSIVE")  # as the switch to write-ahead logging locks the whole file
    other = await connect(str(tmp_path / "file.sqlite"), timeout_s=60)
    pragma = asyncio.create_task(_execute(other, "PRAGMA synchronous = FULL"))
    done, _ = await asyncio.wait({pragma}, timeout=0.05)
    assert not done
    await connection.rollback()
    await pragma
    await other.close()


async def test_errors_come_as_they_are_and_a_rollback_takes_everything_back(connection: aiosqlite.Connection) -> None:
    await _begin(connection)
    await connection.execute("INSERT INTO numbers VALUES (1)")
    with pytest.raises(sqlite3.OperationalError, match="no such table: letters"):
        await connection.execute("INSERT INTO letters VALUES ('a')")
    await connection.rollback()
    async with connection.execute("SELECT count(*) FROM numbers") as cursor:
        assert await cursor.fetchone() == (0,)


async def test_a_closed_connection_says_so(tmp_path: Path) -> None:
    opened = await connect(str(tmp_path / "file.sqlite"), timeout_s=60)
    await opened.close()
    with pytest.raises(ValueError, match="no active connection"):
        await opened.execute("SELECT 1")


async def _begin(connection: aiosqlite.Connection) -> None:
    await _execute(connection, "BEGIN IMMEDIATE")


async def _execute(connection: aiosqlite.Connection, statement: str) -> None:
    await connection.execute(statement)
