"""The attempts at a job: a row for each, from its claim to its end, and why it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database
from modelyard.core.paging import decode_token, encode_token

from .jobs import Job
from .tables import job_attempts

_BEGIN = insert(job_attempts)
_END = update(job_attempts).where(
    job_attempts.c.job_id == bindparam("of_job"), job_attempts.c.attempt == bindparam("of_attempt")
)


@unique
class EndCause(StrEnum):
    """Why an attempt ended; the names are those of `TrainingAttempt.EndCause`."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    PAUSED = "PAUSED"
    PREEMPTED = "PREEMPTED"
    WORKER_STOPPED = "WORKER_STOPPED"
    WORKER_LOST = "WORKER_LOST"
    WORKER_FAULT = "WORKER_FAULT"
    DEADLINE = "DEADLINE"


INFRASTRUCTURE = frozenset({EndCause.WORKER_LOST, EndCause.WORKER_FAULT})
"""A fault of the platform: it uses up the job's infrastructure retries and speaks against the node."""

PREEMPTION = frozenset({EndCause.PAUSED, EndCause.PREEMPTED, EndCause.WORKER_STOPPED})
"""The place was wanted for something else: it uses up nothing."""

RELEASES = PREEMPTION | {EndCause.WORKER_FAULT}
"""Why a worker may give a job back unfinished."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt as its row says. Times are microseconds since 1970."""

    attempt: int
    worker: str
    node: str
    start_time: int
    end_time: int | None
    """None while it runs."""
    end_cause: EndCause | None
    message: str
    resumed_step: int
    """Steps that were done when it began."""


async def begin(connection: AsyncConnection, job: Job) -> None:
    """Writes down that the job has just been claimed."""
    row = {
        "job_id": job.id, "attempt": job.attempt, "worker": job.worker, "node": job.node, "start_time": job.claim_time,
        "message": "", "resumed_step": job.checkpoint_step,
    }  # fmt: skip
    await connection.execute(_BEGIN, row)


async def end(
    connection: AsyncConnection, job_id: str, attempt: int, *, time: int, cause: EndCause, message: str
) -> None:
    """Writes down when and why the attempt ended."""
    values = {"end_time": time, "end_cause": cause, "message": message}
    await connection.execute(_END, {"of_job": job_id, "of_attempt": attempt, **values})


async def list_attempts(
    database: Database, job_id: str, *, page_size: int, page_token: str = ""
) -> tuple[list[Attempt], str]:
    """At most `page_size` attempts, newest first, and the token of the next page, empty at the end."""
    table = job_attempts
    query = select(table).where(table.c.job_id == job_id).order_by(table.c.attempt.desc()).limit(page_size + 1)
    position = decode_token(page_token, int)
    if position is not None:
        query = query.where(table.c.attempt < position[0])
    async with database.read() as connection:
        rows = (await connection.execute(query)).all()
    page = [
        Attempt(
            row.attempt, row.worker, row.node, row.start_time, row.end_time,
            EndCause(row.end_cause) if row.end_cause else None, row.message, row.resumed_step,
        )
        for row in rows[:page_size]
    ]  # fmt: skip
    return page, encode_token(page[-1].attempt) if len(rows) > page_size else ""
