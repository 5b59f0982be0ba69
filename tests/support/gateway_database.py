"""Databases with the gateway's schema, migrated once: a migration takes longer than most tests."""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from sqlalchemy import text

from modelyard.core.database import Database, migrate
from modelyard.gateway.application import MIGRATIONS
from modelyard.gateway.tables import metadata

from .postgres_server import PostgresServer


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite+aiosqlite:///{path}"


def copy_migrated_sqlite(folder: Path) -> str:
    """URL of a new SQLite database with the schema."""
    path = folder / "gateway.sqlite"
    shutil.copy(_template(), path)
    return sqlite_url(path)


def migrated_postgres(server: PostgresServer) -> str:
    """URL of a new PostgreSQL database with the schema."""
    url = server.new_database()
    asyncio.run(_migrate(url))
    return url


def emptied(url: str) -> str:
    """The same database without any rows: on PostgreSQL much faster than another one."""
    asyncio.run(_truncate(url))
    return url


@cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="modelyard-gateway-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "template.sqlite"
    asyncio.run(_migrate(sqlite_url(path)))
    return path


async def _truncate(url: str) -> None:
    database = Database(url)
    async with database.write() as connection:
        await connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)}"))
    await database.close()


async def _migrate(url: str) -> None:
    database = Database(url)
    await migrate(database, MIGRATIONS)
    await database.close()
