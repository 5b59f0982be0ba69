"""Pages of jobs, newest first."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import tuple_

from modelyard.core.database import Database
from modelyard.core.paging import decode_token, encode_token

from .jobs import Job, State
from .ledger import selected, to_job
from .tables import jobs


async def list_jobs(
    database: Database,
    *,
    tenant: str | None,
    states: Collection[State] = (),
    model: str = "",
    page_size: int,
    page_token: str = "",
) -> tuple[list[Job], str]:
    """At most `page_size` jobs and the token of the next page, empty at the end.

    `tenant` None: of all tenants. `states` empty: in any state. `model` empty: of all models.
    """
    query = selected(tenant).order_by(jobs.c.create_time.desc(), jobs.c.id.desc()).limit(page_size + 1)
    if states:
        query = query.where(jobs.c.state.in_(states))
    if model:
        query = query.where(jobs.c.model == model)
    position = decode_token(page_token, int, str)
    if position is not None:
        query = query.where(tuple_(jobs.c.create_time, jobs.c.id) < tuple_(*position))
    async with database.read() as connection:
        page = [to_job(row) for row in await connection.execute(query)]
    more = len(page) > page_size
    page = page[:page_size]
    return page, encode_token(page[-1].create_time, page[-1].id) if more else ""
