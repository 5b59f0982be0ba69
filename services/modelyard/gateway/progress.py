"""The course of a job's progress: constant cost to append to, thinned when it is read.

The n-th progress event of a job has as its level how often n can be halved. So of N events about N / 2^L have level L
or more, evenly spread, and an index finds just those: reading costs by what is answered, not by what was recorded.
"""

from __future__ import annotations

from sqlalchemy import bindparam, select

from modelyard.core.database import Database

from . import events
from .events import Event
from .tables import job_events, jobs

MAX_LEVEL = 31

_COUNT = select(jobs.c.progress_count, jobs.c.progress_sequence).where(jobs.c.id == bindparam("of_job"))
_OF_JOB = select(job_events).where(job_events.c.job_id == bindparam("of_job"))
_SPREAD = _OF_JOB.where(job_events.c.level >= bindparam("lowest"))
_NEWEST = _OF_JOB.where(job_events.c.sequence == bindparam("newest"))


def level_of(number: int) -> int:
    """How often `number`, 1 or more, can be halved; at most MAX_LEVEL."""
    return min((number & -number).bit_length() - 1, MAX_LEVEL)


def lowest_level(count: int, max_points: int) -> int:
    """The lowest level of which, with all higher ones and the newest, at most `max_points` of `count` events are."""
    level = 0
    while (count >> level) + (level_of(count) < level) > max_points:
        level += 1
    return level


async def read_course(database: Database, job_id: str, max_points: int) -> list[Event]:
    """At most `max_points` (1 or more) progress events in order, evenly spread, the newest always among them."""
    async with database.read() as connection:
        count, newest = (await connection.execute(_COUNT, {"of_job": job_id})).one()
        if not count:
            return []
        lowest = lowest_level(count, max_points)
        points = await events.read(connection, _SPREAD, {"of_job": job_id, "lowest": lowest})
        if level_of(count) < lowest:
            points += await events.read(connection, _NEWEST, {"of_job": job_id, "newest": newest})
    return sorted(points, key=lambda event: event.sequence)
