"""Fixtures of the gateway's unit tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from modelyard.core.database import Database
from support.gateway_database import copy_migrated_sqlite
from support.job_desk import JobDesk


@pytest.fixture
def database_url(tmp_path: Path) -> Iterator[str]:
    """A database with the schema and nothing in it."""
    return copy_migrated_sqlite(tmp_path)


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
