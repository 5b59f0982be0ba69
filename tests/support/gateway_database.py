"""Databases with the gateway's schema: migrated once, then copied, since a migration takes longer than most tests."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from functools import cache
from pathlib import Path

from modelyard.core.database import Database, migrate
from modelyard.gateway.application import MIGRATIONS


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite+aiosqlite:///{path}"


def copy_migrated_sqlite(folder: Path) -> str:
    """URL of a new SQLite database with the schema."""
    path = folder / "gateway.sqlite"
    shutil.copy(_template(), path)
    return sqlite_url(path)


@cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="modelyard-gateway-"))
    path = folder / "template.sqlite"

    async def build() -> None:
        database = Database(sqlite_url(path))
        await migrate(database, MIGRATIONS)
        async with database.engine.connect() as connection:
            await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        await database.close()

    # A loop of its own: this may be called from a test that already runs in one.
    with asyncio.Runner() as runner:
        runner.run(build())
    return path
