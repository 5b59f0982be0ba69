"""Fixtures of the gateway's unit tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from modelyard.core.database import Database
from support.gateway_database import copy_migrated_sqlite, emptied, migrated_postgres
from support.job_desk import JobDesk
from support.postgres_server import PostgresServer, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for all tests that want one."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: PostgresServer) -> str:
    """A database with the schema, for one test after the other."""
    return migrated_postgres(postgres)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of either kind, with the schema and nothing in it."""
    if request.param == "sqlite":
        return copy_migrated_sqlite(tmp_path)
    return emptied(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """That database, open."""
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
async def desk(database: Database) -> JobDesk:
    """The domain on it."""
    return JobDesk(database)
