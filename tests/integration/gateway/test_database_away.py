"""A PostgreSQL that goes away and comes back: what is asked meanwhile is told to try again."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from modelyard.core.database import Database
from modelyard.core.errors import Unavailable
from support.postgres_server import PostgresProgram, PostgresServer, make_postgres
from support.waiting import eventually, eventually_sync


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        yield Path(name)


@asynccontextmanager
async def running(folder: Path, program: PostgresProgram) -> AsyncIterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(program.command, stderr=subprocess.DEVNULL, **program.options)  # noqa: ASYNC220 - at once
    try:
        await asyncio.to_thread(eventually_sync, PostgresServer(folder).answers)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)


async def one(database: Database) -> int:
    async with database.read() as connection:
        return int((await connection.execute(text("SELECT 1"))).scalar_one())


async def answers(database: Database) -> bool:
    try:
        return await one(database) == 1
    except Unavailable:
        return False


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGQUIT])
async def test_it_is_unavailable_while_it_is_away(folder: Path, end: signal.Signals) -> None:
    program = make_postgres(folder)
    database = Database(f"postgresql+asyncpg://modelyard@/postgres?host={folder}")
    async with running(folder, program) as process:
        assert await one(database) == 1
        with pytest.raises(Unavailable, match="the database does not answer; try again"):
            async with database.write() as connection:
                process.send_signal(end)
                process.wait(timeout=30)
                await connection.execute(text("SELECT 1"))
        for transaction in (database.read, database.write):
            with pytest.raises(Unavailable):
                async with transaction() as connection:
                    await connection.execute(text("SELECT 1"))
    async with running(folder, program):
        await eventually(lambda: answers(database))
        assert await one(database) == 1
        await database.close()
