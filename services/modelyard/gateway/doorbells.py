"""A doorbell as a row: written with its job in one transaction, deleted when the broker has taken it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import now_us

from . import tables

TAKEN_US = 10_000_000
"""For so long a doorbell belongs to the process that has written or taken it. If that has died, another one rings."""

_WRITE = (
    insert(tables.doorbells)
    .values(job_id=bindparam("of_job"), due_time=now_us() + TAKEN_US, tries=1)
    .returning(tables.doorbells.c.id)
)


@dataclass(frozen=True, slots=True)
class Doorbell:
    """A doorbell that this process is to ring."""

    id: int
    job_id: str
    tries: int
    """How often it has been tried, this time included."""


async def write(connection: AsyncConnection, job_id: str) -> Doorbell:
    """Adds a doorbell, taken by this process: ring it after the commit."""
    return Doorbell((await connection.execute(_WRITE, {"of_job": job_id})).scalar_one(), job_id, 1)
