"""A job's history: what an event can say, how events are written in one go, and how they are read page by page.

Sequence numbers start at 1 and have no gap: they are taken from the job's row while it is locked, and the row and its
events are written in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Any

from sqlalchemy import Row, Select, bindparam, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from .attempts import EndCause
from .checkpoints import Checkpoint
from .jobs import FailureReason, State
from .tables import job_events

_INSERT = insert(job_events)
_PAGE = (
    select(job_events)
    .where(job_events.c.job_id == bindparam("job_id"), job_events.c.sequence > bindparam("after"))
    .order_by(job_events.c.sequence)
    .limit(bindparam("limit"))
)

_PAYLOAD_COLUMNS = (
    "state", "previous_state", "failure_reason", "text", "model_version", "document", "end_cause", "retried",
    "retry_time",
)  # fmt: skip


@unique
class Kind(StrEnum):
    """What an event says."""

    STATE = "STATE"
    PROGRESS = "PROGRESS"
    EVALUATION = "EVALUATION"
    LOG = "LOG"
    CHECKPOINT = "CHECKPOINT"
    ATTEMPT_START = "START"
    ATTEMPT_END = "END"


@dataclass(frozen=True, slots=True)
class StateChange:
    """The job entered another state."""

    state: State
    previous_state: State | None = None
    failure_reason: FailureReason | None = None
    message: str = ""
    model_version: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """Progress or an evaluation, as the worker wrote it."""

    kind: Kind
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that the trainer printed."""

    text: str


@dataclass(frozen=True, slots=True)
class AttemptStart:
    """A worker began an attempt."""

    worker: str
    checkpoint: Checkpoint | None = None
    """What it goes on from; None from the beginning."""


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """The attempt is over."""

    cause: EndCause
    message: str = ""
    retried: bool = False
    retry_time: int | None = None
    """If it is tried again: not before this time."""


Payload = StateChange | Document | LogLine | Checkpoint | AttemptStart | AttemptEnd


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a job's history."""

    sequence: int
    time: int
    """Microseconds since 1970."""
    attempt: int
    payload: Payload
    level: int | None = None
    """Of progress: see `progress`."""


async def append(connection: AsyncConnection, job_id: str, events: Sequence[Event]) -> None:
    """Writes events whose sequence numbers the caller has taken from the locked row."""
    if events:
        await connection.execute(_INSERT, [{"job_id": job_id, **_to_row(event)} for event in events])


async def read_page(connection: AsyncConnection, job_id: str, after: int, limit: int) -> list[Event]:
    """At most `limit` events after sequence number `after`, in order."""
    return await read(connection, _PAGE, {"job_id": job_id, "after": after, "limit": limit})


async def read(connection: AsyncConnection, query: Select[Any], parameters: Mapping[str, Any]) -> list[Event]:
    """The events that a query for whole rows finds."""
    return [_from_row(row) for row in await connection.execute(query, parameters)]


def _to_row(event: Event) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_PAYLOAD_COLUMNS)
    row |= {"sequence": event.sequence, "time": event.time, "attempt": event.attempt, "level": event.level}
    match event.payload:
        case StateChange() as change:
            row |= {
                "kind": Kind.STATE, "state": change.state, "previous_state": change.previous_state,
                "failure_reason": change.failure_reason, "text": change.message, "model_version": change.model_version,
            }  # fmt: skip
        case Document(kind, body):
            row |= {"kind": kind, "document": body}
        case LogLine(text):
            row |= {"kind": Kind.LOG, "text": text}
        case Checkpoint() as checkpoint:
            row |= {"kind": Kind.CHECKPOINT, "document": checkpoint.encode()}
        case AttemptStart(worker, from_):
            row |= {"kind": Kind.ATTEMPT_START, "text": worker, "document": from_.encode() if from_ else None}
        case AttemptEnd() as end:
            row |= {
                "kind": Kind.ATTEMPT_END, "end_cause": end.cause, "text": end.message, "retried": end.retried,
                "retry_time": end.retry_time,
            }  # fmt: skip
    return row


def _from_row(row: Row[Any]) -> Event:
    return Event(row.sequence, row.time, row.attempt, _payload(row), row.level)


def _payload(row: Row[Any]) -> Payload:
    match Kind(row.kind):
        case Kind.STATE:
            return StateChange(
                State(row.state),
                State(row.previous_state) if row.previous_state else None,
                FailureReason(row.failure_reason) if row.failure_reason else None,
                row.text,
                row.model_version,
            )
        case Kind.LOG:
            return LogLine(row.text)
        case Kind.CHECKPOINT:
            return Checkpoint.decode(row.document)
        case Kind.ATTEMPT_START:
            return AttemptStart(row.text, Checkpoint.decode(row.document) if row.document else None)
        case Kind.ATTEMPT_END:
            return AttemptEnd(EndCause(row.end_cause), row.text, row.retried, row.retry_time)
        case kind:
            return Document(kind, row.document)
