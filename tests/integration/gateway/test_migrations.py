"""The migrations, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, func, select

from modelyard.core.database import Database, migrate
from modelyard.gateway.application import MIGRATIONS
from modelyard.gateway.tables import jobs, metadata
from support.gateway_database import sqlite_url
from support.postgres_server import PostgresServer


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of either kind without any table."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "empty.sqlite")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
async def database(empty_url: str) -> AsyncIterator[Database]:
    database = Database(empty_url)
    yield database
    await database.close()


def differences(connection: Connection) -> list[Any]:
    return list(compare_metadata(MigrationContext.configure(connection), metadata))


async def test_they_make_exactly_the_tables_that_the_code_knows(database: Database) -> None:
    await migrate(database, MIGRATIONS)
    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_replicas_that_start_at_once_migrate_once(empty_url: str, database: Database) -> None:
    replicas = [Database(empty_url) for _ in range(8)]
    await asyncio.gather(*(migrate(replica, MIGRATIONS) for replica in replicas))
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(jobs))).scalar_one() == 0
    for replica in replicas:
        await replica.close()
