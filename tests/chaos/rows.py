"""What the databases say, asked behind the services' back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool


class DatabaseAway(Exception):
    """The database does not answer."""


def select(url: str, statement: str) -> Sequence[Row[Any]]:
    """The rows of a query; raises DatabaseAway. Opens a connection for it alone."""
    try:
        return asyncio.run(asyncio.wait_for(_select(url, statement), timeout=10))
    except Exception as error:
        raise DatabaseAway(str(error)) from error


def pairs(url: str, statement: str) -> dict[Any, Any]:
    """The rows of a query with two columns, the second by the first."""
    return dict(map(tuple, select(url, statement)))


async def _select(url: str, statement: str) -> Sequence[Row[Any]]:
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return (await connection.execute(text(statement))).all()
    finally:
        await engine.dispose()


def tables(url: str) -> set[str]:
    """The names of the tables."""
    known = (
        "SELECT name FROM sqlite_master WHERE type = 'table'"
        if url.startswith("sqlite")
        else "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    )
    return {row[0] for row in select(url, known)}
