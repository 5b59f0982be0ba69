"""Fixtures of the registry's unit tests."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from modelyard.core.database import Database, migrate
from modelyard.registry.application import MIGRATIONS
from support.blob_desk import BlobDesk


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the schema and nothing in it."""
    path = tmp_path_factory.mktemp("migrated") / "registry.db"
    asyncio.run(_migrate(path))
    return path


async def _migrate(path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{path}")
    await migrate(database, MIGRATIONS)
    await database.close()


@pytest.fixture
async def database(migrated: Path, tmp_path: Path) -> AsyncIterator[Database]:
    """A database with the schema and nothing in it."""
    shutil.copy(migrated, tmp_path / "registry.db")
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/registry.db")
    yield database
    await database.close()


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[BlobDesk]:
    """Uploads on that database, with blobs in memory and parts of 64 bytes."""
    async with BlobDesk(database, MemoryStore()) as desk:
        yield desk
