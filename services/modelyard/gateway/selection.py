"""Choosing rows to work on when several replicas choose at the same time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select


def chosen_once(query: Select[tuple[Any]]) -> Select[tuple[Any]]:
    """The rows of a query for ids, locked, without those that somebody else has locked; for `UPDATE … WHERE id IN`.

    The query becomes a common table expression because PostgreSQL may run a plain subquery several times, and one that
    skips locked rows then answers others each time, more than its LIMIT in all. An expression that locks rows is run
    once. SQLite has one writer at a time and leaves the locking clause out.
    """
    chosen = query.with_for_update(skip_locked=True).cte("chosen")
    return select(*chosen.c)
