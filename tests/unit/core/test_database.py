"""The database's clock and its transactions, on SQLite."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, update
from sqlalchemy.exc import OperationalError

from modelyard.core.database import Database, now_us
from modelyard.core.errors import Unavailable

METADATA = MetaData()
COUNTERS = Table("counters", METADATA, Column("id", Integer, primary_key=True), Column("value", Integer))


@pytest.fixture
async def database(tmp_path: Path):
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/test.db")
    async with database.engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    async with database.write() as connection:
        await connection.execute(insert(COUNTERS).values(id=1, value=0))
    yield database
    await database.close()


async def test_the_database_clock_is_microseconds_since_1970(database: Database) -> None:
    async with database.read() as connection:
        clock = (await connection.execute(select(now_us()))).scalar_one()
    assert clock == pytest.approx(time.time() * 1e6, abs=60e6)


async def test_read_modify_write_by_many_loses_nothing(database: Database) -> None:
    async def add_one() -> None:
        async with database.write() as connection:
            value = (await connection.execute(select(COUNTERS.c.value))).scalar_one()
            await connection.execute(update(COUNTERS).values(value=value + 1))

    await asyncio.gather(*(add_one() for _ in range(30)))
    async with database.read() as connection:
        assert (await connection.execute(select(COUNTERS.c.value))).scalar_one() == 30


async def test_what_is_raised_rolls_back(database: Database) -> None:
    async def fail() -> None:
        async with database.write() as connection:
            await connection.execute(update(COUNTERS).values(value=99))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with database.read() as connection:
        assert (await connection.execute(select(COUNTERS.c.value))).scalar_one() == 0


async def test_one_that_somebody_else_holds_is_unavailable_for_now(database: Database, tmp_path: Path) -> None:
    impatient = Database(f"sqlite+aiosqlite:///{tmp_path}/test.db", patience_s=0.05)
    async with database.write():
        with pytest.raises(Unavailable, match="the database does not answer"):
            async with impatient.write():
                pass
    async with impatient.write() as connection:
        await connection.execute(update(COUNTERS).values(value=1))
    await impatient.close()


async def test_one_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/nowhere/test.db")
    for transaction in (database.read, database.write):
        with pytest.raises(Unavailable) as raised:
            async with transaction():
                pass
        assert raised.value.retry_after == 1
    await database.close()


async def test_a_mistake_of_ours_is_not_called_away(database: Database) -> None:
    with pytest.raises(OperationalError, match="no such table"):
        async with database.read() as connection:
            await connection.exec_driver_sql("SELECT * FROM letters")
