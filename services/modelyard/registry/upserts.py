"""INSERT that leaves an existing row alone, or replaces it. Each dialect of SQLAlchemy has its own."""

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


def insert_or_replace(database: Database, table: Table, values: dict[str, Any]) -> sqlite.Insert | postgresql.Insert:
    """The statement; an existing row gets all these values."""
    keys = [column.name for column in table.primary_key]
    changed = {name: value for name, value in values.items() if name not in keys}
    if database.is_sqlite:
        return sqlite.insert(table).values(values).on_conflict_do_update(index_elements=keys, set_=changed)
    return postgresql.insert(table).values(values).on_conflict_do_update(index_elements=keys, set_=changed)
