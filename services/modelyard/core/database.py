"""SQL for gateway and registry: one async engine, SQLite on one machine, PostgreSQL in a cluster.

Every write begins with the write lock (`BEGIN IMMEDIATE` on SQLite), so a transaction never fails half-way because
another one came between its read and its write. Times come from the database's clock, never from a program's, and are
integers: microseconds since 1970 in UTC, the same in both databases and ready for arithmetic.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

import alembic.command
import alembic.config
from sqlalchemy import BigInteger, Connection, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from .errors import Unavailable
from .logs import get_logger
from .sqlite_driver import DBAPI, primary_code

_SQLITE_AWAY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN}
_POSTGRES_AWAY = ("08", "53", "57P", "58")
"""Classes of its error codes: connection, resources, shutdown, its own system (PostgreSQL, appendix A)."""
_MIGRATION_LOCK = 0x6D6F64656C  # any fixed number: PostgreSQL's advisory lock for migrations

_LOCK = text("SELECT pg_advisory_xact_lock(:key)")
_LOCK_SHARED = text("SELECT pg_advisory_xact_lock_shared(:key)")

log = get_logger()


class Database:
    """An engine with the two kinds of transaction that the services use."""

    def __init__(self, url: str, *, patience_s: float = 10.0) -> None:
        """`url`: `sqlite+aiosqlite:////path` or `postgresql+asyncpg://user:password@host/name`.

        `patience_s`: how long to wait for another process that holds a SQLite file.
        """
        self.engine: AsyncEngine = create_async_engine(url, **_engine_options(url, patience_s))
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        # SQLite has one writer at a time, and those that find the file locked sleep longer and longer before they look
        # again. Writers of one process wait for one another here instead, in order and not a moment too long.
        self._writer: AbstractAsyncContextManager[Any] = asyncio.Lock() if self.is_sqlite else nullcontext()
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _on_sqlite_connect)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads: one consistent view. Raises Unavailable if the database is away."""
        async with self._connected() as connection:
            if self.is_sqlite:
                await connection.exec_driver_sql("BEGIN")
            else:  # PostgreSQL's default would show each statement a view of its own
                await connection.execution_options(isolation_level="REPEATABLE READ")
            try:
                yield connection
            finally:
                await connection.rollback()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes: committed at the end, rolled back if anything is raised.

        Raises Unavailable if the database is away. If it went away during the commit, nobody knows whether it was done.
        """
        async with self._writer, self._connected() as connection:
            if self.is_sqlite:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                await connection.rollback()
                raise
            await connection.commit()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(self.engine.connect())
            except (OSError, DBAPIError) as error:
                raise _away(error) from error
            try:
                yield connection
            except DBAPIError as error:
                if not _is_away(error):
                    raise
                raise _away(error) from error

    async def close(self) -> None:
        """Closes all connections."""
        await self.engine.dispose()


def _is_away(error: DBAPIError) -> bool:
    """Whether the database went away, or cannot work now; and not that we asked for something wrong."""
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.OperationalError):
        return primary_code(error.orig) in _SQLITE_AWAY
    return str(getattr(error.orig, "sqlstate", None) or "").startswith(_POSTGRES_AWAY)


def _away(error: Exception) -> Unavailable:
    reason = str(error.orig if isinstance(error, DBAPIError) else error)
    log.warning("the database does not answer", reason=reason)
    return Unavailable("the database does not answer; try again", retry_after=1)


class now_us(GenericFunction[int]):  # noqa: N801 - reads as a function in a statement, as SQLAlchemy's own `func.now`
    """The database's clock in microseconds since 1970, as an expression for any statement (SQLite: exact to 1 ms)."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_us, "sqlite")
def _now_on_sqlite(_element: now_us, _compiler: SQLCompiler, **_options: Any) -> str:
    return "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"


@compiles(now_us, "postgresql")
def _now_on_postgresql(_element: now_us, _compiler: SQLCompiler, **_options: Any) -> str:
    # clock_timestamp(), not now(): a transaction that waited for a lock must not write the time at which it began.
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"


async def serialise(connection: AsyncConnection, key: int, *, shared: bool = False) -> None:
    """Waits until no other transaction holds this key, and holds it to the end of this one. With `shared`, any number
    of transactions that ask for it so hold it together. SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(_LOCK_SHARED if shared else _LOCK, {"key": key})


async def migrate(database: Database, script_location: str) -> None:
    """Brings the schema up to date. Safe when several replicas start at once: one migrates, the others wait.

    `script_location`: where the Alembic scripts are, as `package:folder`.
    """
    async with database.engine.connect() as connection:
        if database.is_sqlite:
            await connection.exec_driver_sql("PRAGMA journal_mode = WAL")  # for all of the file's life
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            await serialise(connection, _MIGRATION_LOCK)
        await connection.run_sync(_upgrade, script_location)
        await connection.commit()


def _upgrade(connection: Connection, script_location: str) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", script_location)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection  # env.py migrates on this one, inside the lock
    alembic.command.upgrade(config, "head")


def _engine_options(url: str, patience_s: float) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"module": DBAPI, "connect_args": {"timeout": patience_s}}
    return {"pool_pre_ping": True, "pool_size": 10, "max_overflow": 10}


def _on_sqlite_connect(connection: Any, _record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in (
        "synchronous = FULL",  # an answered submission survives a power cut
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
