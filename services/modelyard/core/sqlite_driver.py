"""SQLite in the event loop, as SQLAlchemy's asyncio engine drives it.

The usual driver, aiosqlite, hands every step of every statement to the connection's thread and back, some thirty times
for a transaction of seven statements, which costs many times what SQLite itself takes for them. Here statements run
where they are awaited: they are short, since ours read by index and in pages. Two things may take long, and hold up
nobody:

- *Somebody else has the file.* SQLite is told not to wait; we do, by asking again, as its own waiting does too. It may
  be another connection of this very loop that has to go on first.
- *The disk.* A commit waits for it, in a thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Final

import aiosqlite
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_connection, AsyncAdapt_dbapi_cursor, AsyncAdapt_terminate
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_dbapi
from sqlalchemy.util import await_

_PAUSES_S: Final = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.025, 0.025, 0.05, 0.05, 0.1)
"""Between two tries, the last one again and again: those of SQLite's own busy handler."""


def primary_code(error: sqlite3.OperationalError) -> int:
    """SQLite's code of the error without the byte of details, such as `sqlite3.SQLITE_BUSY`."""
    return error.sqlite_errorcode & 0xFF


class _File:
    """A connection to a file, in autocommit mode: transactions are begun by hand."""

    def __init__(self, path: str, patience_s: float) -> None:
        self.connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        self.patience_s = patience_s

    async def commit(self) -> None:
        await _in_thread(self.connection.commit)

    async def close(self) -> None:
        await _in_thread(self.connection.close)  # the last one writes the log back into the file


class _Nothing:
    """Awaited, it is there at once. SQLAlchemy takes a statement that awaits nothing for a mistake in the set-up."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


_NOTHING: Final = _Nothing()


class _Cursor(AsyncAdapt_dbapi_cursor):
    """A plain cursor of the standard library behind the face that SQLAlchemy expects."""

    __slots__ = ()

    _awaitable_cursor_close = False
    _cursor: Any

    def _make_new_cursor(self, connection: Any) -> Any:
        return connection.connection.cursor()

    def _aenter_cursor(self, cursor: Any) -> Any:
        return cursor

    def execute(self, operation: Any, parameters: Any = None) -> Any:
        self._run(self._cursor.execute, operation, parameters or ())
        if self._cursor.description:
            self._rows = deque(self._cursor.fetchall())
        return self

    def executemany(self, operation: Any, seq_of_parameters: Any) -> Any:
        self._run(self._cursor.executemany, operation, seq_of_parameters)
        return self

    def _run(self, execute: Callable[..., Any], operation: Any, parameters: Any) -> None:
        """Executes; as long as somebody else has the file, again and again.

        To begin anew is safe: reads have no effect, and writes come behind BEGIN IMMEDIATE, where nobody else has it.
        """
        await_(_NOTHING)
        waited_s, pauses = 0.0, iter(_PAUSES_S)
        while True:
            try:
                execute(operation, parameters)
            except sqlite3.OperationalError as error:
                is_busy = primary_code(error) == sqlite3.SQLITE_BUSY
                if not is_busy or waited_s >= self._connection.patience_s:
                    raise
            else:
                return
            pause_s = next(pauses, _PAUSES_S[-1])
            await_(asyncio.sleep(pause_s))
            waited_s += pause_s


class _Connection(AsyncAdapt_terminate, AsyncAdapt_dbapi_connection):
    __slots__ = ()

    _cursor_cls = _Cursor

    def create_function(self, *args: Any, **options: Any) -> None:
        self._connection.connection.create_function(*args, **options)

    def rollback(self) -> None:
        self._connection.connection.rollback()

    async def _terminate_graceful_close(self) -> None:
        await self._connection.close()

    def _terminate_force_close(self) -> None:
        self._connection.connection.close()


class _Dbapi(AsyncAdapt_aiosqlite_dbapi):
    def __init__(self) -> None:
        super().__init__(aiosqlite, sqlite3)
        self.has_stop = True

    def connect(self, *arguments: Any, **options: Any) -> Any:
        (path,) = arguments
        file: Any = _File(path, options["timeout"])
        return _Connection(self, file)


DBAPI: Final = _Dbapi()
"""For SQLAlchemy's `create_async_engine(url, module=DBAPI, connect_args={"timeout": seconds})`, with the URL of the
aiosqlite dialect. `timeout`: how long to wait for others who have the file."""


async def _in_thread(work: Callable[[], None]) -> None:
    """Not left half-way: who is cancelled meanwhile hears of it afterwards."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
