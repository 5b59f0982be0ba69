"""SQLite without a change of threads for each statement.

aiosqlite hands every step of every statement to the connection's thread and back, some thirty times for a transaction
of seven statements, which costs many times what SQLite itself takes for them. Here steps run where they are awaited:
they are short, since our statements read by index and in pages. Only what may have to wait goes to the thread: the
beginning of a transaction, which may wait for a writer in another process, its end, which waits for the disk, and
pragmas, since most of them read the schema first and so wait for whoever just then switches the file to write-ahead
logging. That may be another connection of this very loop: to wait for it in the loop would be to wait for oneself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import aiosqlite

_ROWS_AT_ONCE = 64
"""aiosqlite's own default for iterating over a cursor, which SQLAlchemy does not do."""

_T = TypeVar("_T")


class ShortStepsConnection(aiosqlite.Connection):
    """An aiosqlite connection whose short steps run in the event loop's thread."""

    async def _execute(self, fn: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        # The one method that all others of aiosqlite 0.20 to 0.22 go through; a test sees that it still is.
        connection = self._conn  # raises ValueError when closed, as aiosqlite does
        if fn in (connection.commit, connection.close) or _may_wait(args):
            return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-any-return,no-untyped-call]  # untyped
        return fn(*args, **kwargs)


def _may_wait(arguments: tuple[Any, ...]) -> bool:
    """Whether this is a statement that may wait for other connections."""
    return bool(arguments) and isinstance(arguments[0], str) and arguments[0].startswith(("BEGIN", "PRAGMA"))


async def connect(path: str, *, timeout_s: float) -> aiosqlite.Connection:
    """A connection to a file, in autocommit mode: transactions are begun by hand. For SQLAlchemy's `async_creator`."""
    connector = partial(sqlite3.connect, path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
    connection = ShortStepsConnection(connector, _ROWS_AT_ONCE)
    connection._thread.daemon = True  # noqa: SLF001 - as SQLAlchemy does with the connections that it makes itself
    return await connection
