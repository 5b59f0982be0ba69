"""A job's history: what an event can say, how events are written in one go, and how they are read page by page.

Sequence numbers start at 1 and have no gap: they are taken from the job's row while it is locked, and the row and its
events are written in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Any

from sqlalchemy import Row, bindparam, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from .jobs import FailureReason, State
from .tables import job_events

_INSERT = insert(job_events)
_PAGE = (
    select(job_events)
    .where(job_events.c.job_id == bindparam("job_id"), job_events.c.sequence > bindparam("after"))
    .order_by(job_events.c.sequence)
    .limit(bindparam("limit"))
)


@unique
class Kind(StrEnum):
    """What an event says."""

    STATE = "STATE"
    PROGRESS = "PROGRESS"
    EVALUATION = "EVALUATION"
    LOG = "LOG"


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


Payload = StateChange | Document | LogLine


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a job's history."""

    sequence: int
    time: int
    """Microseconds since 1970."""
    attempt: int
    payload: Payload


async def append(connection: AsyncConnection, job_id: str, events: Sequence[Event]) -> None:
    """Writes events whose sequence numbers the caller has taken from the locked row."""
    if events:
        await connection.execute(_INSERT, [{"job_id": job_id, **_to_row(event)} for event in events])


async def read_page(connection: AsyncConnection, job_id: str, after: int, limit: int) -> list[Event]:
    """At most `limit` events after sequence number `after`, in order."""
    rows = await connection.execute(_PAGE, {"job_id": job_id, "after": after, "limit": limit})
    return [_from_row(row) for row in rows]


def _to_row(event: Event) -> dict[str, Any]:
    row: dict[str, Any] = {
        "sequence": event.sequence, "time": event.time, "attempt": event.attempt, "state": None, "previous_state": None,
        "failure_reason": None, "text": None, "model_version": None, "document": None,
    }  # fmt: skip
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
    return row


def _from_row(row: Row[Any]) -> Event:
    kind = Kind(row.kind)
    payload: Payload
    if kind is Kind.STATE:
        payload = StateChange(
            State(row.state),
            State(row.previous_state) if row.previous_state else None,
            FailureReason(row.failure_reason) if row.failure_reason else None,
            row.text,
            row.model_version,
        )
    elif kind is Kind.LOG:
        payload = LogLine(row.text)
    else:
        payload = Document(kind, row.document)
    return Event(row.sequence, row.time, row.attempt, payload)
