"""A doorbell as a row: written with its job in one transaction, deleted when the broker has taken it.

It says that somebody should come to a queue. Which job that worker gets is decided when it comes (see `claims`), so the
job that a doorbell names is only the one that it was written for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import now_us

from . import tables

TAKEN_US = 10_000_000
"""For so long a doorbell belongs to the process that has written or taken it. If that has died, another one rings."""

_NEW: dict[str, Any] = {"job_id": bindparam("of_job"), "queue": bindparam("of_queue")}
_WRITE = insert(tables.doorbells).values(**_NEW, due_time=now_us() + TAKEN_US, tries=1).returning(tables.doorbells.c.id)
_WRITE_FOR_LATER = insert(tables.doorbells).values(**_NEW, due_time=bindparam("due"), tries=0)


@dataclass(frozen=True, slots=True)
class Doorbell:
    """A doorbell that this process is to ring."""

    id: int
    job_id: str
    queue: str
    tries: int
    """How often it has been tried, this time included."""


async def write(connection: AsyncConnection, job_id: str, queue: str) -> Doorbell:
    """Adds a doorbell, taken by this process: ring it after the commit."""
    new = {"of_job": job_id, "of_queue": queue}
    return Doorbell((await connection.execute(_WRITE, new)).scalar_one(), job_id, queue, 1)


async def write_for_later(connection: AsyncConnection, job_id: str, queue: str, due_time: int) -> None:
    """Adds a doorbell that is rung at `due_time`, in microseconds since 1970, by whoever finds it then."""
    await connection.execute(_WRITE_FOR_LATER, {"of_job": job_id, "of_queue": queue, "due": due_time})
