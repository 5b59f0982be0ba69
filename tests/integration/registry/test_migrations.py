"""The migrations, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from modelyard.core.database import Database, migrate
from modelyard.registry.application import MIGRATIONS
from modelyard.registry.settings import RegistrySettings
from modelyard.registry.tables import metadata


@pytest.fixture
async def database(settings: RegistrySettings) -> AsyncIterator[Database]:
    database = Database(settings.database_url)
    yield database
    await database.close()


def differences(connection: Connection) -> list[Any]:
    return list(compare_metadata(MigrationContext.configure(connection), metadata))


async def test_they_make_exactly_the_tables_that_the_code_knows(database: Database) -> None:
    await migrate(database, MIGRATIONS)
    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_replicas_that_start_at_once_migrate_once(settings: RegistrySettings, database: Database) -> None:
    replicas = [Database(settings.database_url) for _ in range(4)]
    await asyncio.gather(*(migrate(replica, MIGRATIONS) for replica in replicas))
    async with database.read() as connection:
        rows = (await connection.exec_driver_sql("SELECT value FROM revision")).all()
    assert [tuple(row) for row in rows] == [(0,)]
    for replica in replicas:
        await replica.close()
