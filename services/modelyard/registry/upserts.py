"""INSERT that leaves an existing row alone. Both databases have it, SQLAlchemy spells it per dialect."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

from modelyard.core.database import Database


def insert_if_absent(database: Database, table: Table, values: dict[str, Any]) -> sqlite.Insert | postgresql.Insert:
    """The statement; with `returning` it answers no row where there was one already."""
    if database.is_sqlite:
        return sqlite.insert(table).values(values).on_conflict_do_nothing()
    return postgresql.insert(table).values(values).on_conflict_do_nothing()
