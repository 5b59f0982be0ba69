"""The checkpoints of jobs: what is known of each, and which of their blobs are still wanted.

The newest two of a running job stay in the artifact store, so that a broken newest one costs little; `removal` sees to
the others. Blobs go by their content. Our trainers' differ from job to job, another trainer's may not, and a worker
uploads nothing that the store has. So it announces a checkpoint before it looks: a row that keeps the blob as that of
a recorded one does. Whoever announces or removes holds the digest's lock, and nothing is announced that is just being
removed. What a worker finds after its announcement is therefore still there when the checkpoint is recorded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, delete, exists, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import serialise
from modelyard.core.errors import WrongState

from .tables import job_checkpoints as table

KEPT = 2
"""The newest checkpoints of a job that has not ended."""

_RETRY_S = 1.0
"""A removal is one call of the store."""

_INSERT = insert(table)
_OF_JOB = table.c.job_id == bindparam("of_job")
_WANTED = and_(_OF_JOB, table.c.recorded, table.c.remove_time.is_(None))
_NEWEST_FIRST = (table.c.step.desc(), table.c.id.desc())
_NEWEST = select(table.c.id).where(_WANTED).order_by(*_NEWEST_FIRST)
_AGAIN = update(table).where(_WANTED, table.c.digest == bindparam("of_digest"))
_RETIRE = update(table).where(_WANTED, table.c.id.not_in(_NEWEST.limit(KEPT))).values(remove_time=bindparam("now"))
_RETIRE_OLDER = (
    update(table).where(_WANTED, table.c.id.not_in(_NEWEST.limit(1))).values(remove_time=bindparam("now"))
)  # fmt: skip
_RETIRE_REST = update(table).where(_WANTED).values(remove_time=bindparam("then"))
_STILL_KEPT = select(table.c.digest).where(
    _OF_JOB, table.c.remove_time.is_(None), table.c.digest.in_(bindparam("of_digests", expanding=True))
)
_REMOVING = select(exists().where(table.c.digest == bindparam("of_digest"), table.c.removing))
_ANNOUNCED = and_(_OF_JOB, ~table.c.recorded, ~table.c.removing)
_FORGET = delete(table).where(_ANNOUNCED, table.c.digest == bindparam("of_digest"))
_GIVE_UP = update(table).where(_ANNOUNCED, table.c.remove_time.is_(None)).values(remove_time=bindparam("now"))
_GIVE_UP_BEHIND = _GIVE_UP.where(
    or_(table.c.step < bindparam("of_step"), table.c.attempt < bindparam("of_attempt"))
)  # fmt: skip


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


async def lock_digest(connection: AsyncConnection, digest: str) -> None:
    """Waits until nobody else announces or removes this blob, and keeps others waiting until the transaction ends."""
    await serialise(connection, int.from_bytes(hashlib.sha256(digest.encode()).digest()[:8], "big", signed=True))


async def announce(connection: AsyncConnection, job_id: str, checkpoint: Checkpoint) -> None:
    """Keeps the blob from now on, whether it is there yet or not, until the job is past this checkpoint or over.

    Raises WrongState while the blob is being removed: it may be there now and gone in a moment.
    """
    same = {"of_job": job_id, "of_digest": checkpoint.digest}
    await lock_digest(connection, checkpoint.digest)
    if (await connection.execute(_REMOVING, same)).scalar_one():
        raise WrongState(
            "the same content is just being removed; announce it again",
            retry_after=_RETRY_S,
            metadata={"state": "REMOVING", "digest": checkpoint.digest},
        )
    await connection.execute(_FORGET, same)
    await connection.execute(_INSERT, _row(job_id, checkpoint, recorded=False))


async def kept(connection: AsyncConnection, job_id: str, digests: Iterable[str]) -> set[str]:
    """Those of the digests whose blobs the job has kept since before its worker looked for them. Only edits of the job
    itself change that."""
    rows = await connection.execute(_STILL_KEPT, {"of_job": job_id, "of_digests": list(digests)})
    return set(rows.scalars())


async def add(connection: AsyncConnection, job_id: str, checkpoint: Checkpoint, *, wanted: bool) -> None:
    """Writes a checkpoint down, in place of its announcement. One that is not wanted is there to be removed; a wanted
    one drives out older ones."""
    same = {"of_job": job_id, "of_digest": checkpoint.digest}
    await connection.execute(_FORGET, same)
    if wanted:
        behind = {"of_step": checkpoint.step, "of_attempt": checkpoint.attempt}
        await connection.execute(_GIVE_UP_BEHIND, {**same, **behind, "now": checkpoint.create_time})
    again = await connection.execute(_AGAIN, {**same, "step": checkpoint.step, "attempt": checkpoint.attempt})
    if again.rowcount:
        return  # the job has this very blob already
    remove_time = None if wanted else checkpoint.create_time
    await connection.execute(_INSERT, _row(job_id, checkpoint, recorded=True) | {"remove_time": remove_time})
    if wanted:
        await connection.execute(_RETIRE, {"of_job": job_id, "now": checkpoint.create_time})


async def retire(connection: AsyncConnection, job_id: str, *, now: int, last_until: int) -> None:
    """The job is over: its checkpoints may be removed now, the newest at `last_until`."""
    await connection.execute(_GIVE_UP, {"of_job": job_id, "now": now})
    if last_until > now:
        await connection.execute(_RETIRE_OLDER, {"of_job": job_id, "now": now})
    await connection.execute(_RETIRE_REST, {"of_job": job_id, "then": max(now, last_until)})


def _row(job_id: str, checkpoint: Checkpoint, *, recorded: bool) -> dict[str, Any]:
    """Of a checkpoint that is wanted."""
    return {"job_id": job_id, **asdict(checkpoint), "recorded": recorded, "remove_time": None, "removing": False}
