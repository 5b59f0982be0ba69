"""The checkpoints of jobs: what is known of each, and which of their blobs are still wanted.

The newest two of a running job stay in the artifact store, so that a broken newest one costs little; `removal` sees to
the others. Blobs go by their content. Our trainers' differ from job to job, another trainer's may not: whoever records
or removes a blob holds its digest's lock, so that none is removed that somebody has just recorded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .tables import job_checkpoints as table

KEPT = 2
"""The newest checkpoints of a job that has not ended."""

_INSERT = insert(table)
_WANTED = and_(table.c.job_id == bindparam("of_job"), table.c.remove_time.is_(None))
_NEWEST_FIRST = (table.c.step.desc(), table.c.id.desc())
_NEWEST = select(table.c.id).where(_WANTED).order_by(*_NEWEST_FIRST)
_AGAIN = update(table).where(_WANTED, table.c.digest == bindparam("of_digest"))
_RETIRE = update(table).where(_WANTED, table.c.id.not_in(_NEWEST.limit(KEPT))).values(remove_time=bindparam("now"))
_RETIRE_OLDER = (
    update(table).where(_WANTED, table.c.id.not_in(_NEWEST.limit(1))).values(remove_time=bindparam("now"))
)  # fmt: skip
_RETIRE_REST = update(table).where(_WANTED).values(remove_time=bindparam("then"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A saved state of a training whose blob is in the artifact store."""

    attempt: int
    """The attempt that saved it."""
    epoch: int
    step: int
    digest: str
    """SHA-256 of the blob."""
    size_bytes: int
    create_time: int
    """When the gateway recorded it, in microseconds since 1970."""

    def encode(self) -> bytes:
        """As it stands in a column."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, column: bytes) -> Checkpoint:
        """The inverse of `encode`."""
        return cls(**json.loads(column))


def is_wanted(now: int | ColumnElement[int]) -> ColumnElement[bool]:
    """Whether a row's blob must not be removed yet."""
    return and_(~table.c.removing, or_(table.c.remove_time.is_(None), table.c.remove_time > now))


async def lock_digests(connection: AsyncConnection, digests: Iterable[str]) -> None:
    """Waits until nobody else records or removes these blobs, and keeps others waiting until the transaction ends.

    SQLite has one writer at a time anyway.
    """
    if connection.dialect.name != "postgresql":
        return
    for digest in sorted(set(digests)):  # in one order for everybody: no two wait for each other
        key = int.from_bytes(hashlib.sha256(digest.encode()).digest()[:8], "big", signed=True)
        await connection.execute(select(func.pg_advisory_xact_lock(key)))


async def being_removed(connection: AsyncConnection, digests: Iterable[str]) -> set[str]:
    """Those of the digests whose blobs may be gone any moment; the caller has locked them."""
    query = select(table.c.digest).where(table.c.digest.in_(set(digests)), table.c.removing)
    return set((await connection.execute(query)).scalars())


async def add(connection: AsyncConnection, job_id: str, checkpoint: Checkpoint, *, wanted: bool) -> None:
    """Writes a checkpoint down. One that is not wanted is there to be removed; a wanted one drives out older ones."""
    same = {"of_job": job_id, "of_digest": checkpoint.digest}
    again = await connection.execute(_AGAIN, {**same, "step": checkpoint.step, "attempt": checkpoint.attempt})
    if again.rowcount:
        return  # the job has this very blob already
    remove_time = None if wanted else checkpoint.create_time
    row = {"job_id": job_id, **asdict(checkpoint), "remove_time": remove_time, "removing": False}
    await connection.execute(_INSERT, row)
    if wanted:
        await connection.execute(_RETIRE, {"of_job": job_id, "now": checkpoint.create_time})


async def retire(connection: AsyncConnection, job_id: str, *, now: int, last_until: int) -> None:
    """The job is over: its checkpoints may be removed now, the newest at `last_until`."""
    if last_until > now:
        await connection.execute(_RETIRE_OLDER, {"of_job": job_id, "now": now})
    await connection.execute(_RETIRE_REST, {"of_job": job_id, "then": max(now, last_until)})
