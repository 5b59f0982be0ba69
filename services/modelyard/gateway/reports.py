"""What a worker reports: the lease is renewed, news is recorded once, and the gateway's wish goes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from modelyard.core.errors import InvalidFields

from .events import Document, Kind, LogLine
from .jobs import State
from .ledger import Edit, Ledger

MAX_PROGRESS_EVENTS = 50
"""Progress events kept of one report. A worker that reports every 10 s and updates 4 times a second stays below."""


class Directive(Enum):
    """What the worker is to do."""

    CONTINUE = auto()
    CANCEL = auto()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a report."""

    directive: Directive
    updates_received: int
    """How many updates of this attempt are recorded."""


Update = State | Document | LogLine
"""A state that the worker entered, progress or an evaluation, or a printed line."""


class Reports:
    """Records what workers report."""

    def __init__(self, ledger: Ledger, *, lease_us: int) -> None:
        self._ledger = ledger
        self._lease_us = lease_us

    async def report(self, job_id: str, attempt: int, first_update: int, updates: Sequence[Update]) -> Receipt:
        """Records what is new of `updates` and renews the lease, in one transaction.

        `first_update` is the position of the first one among the attempt's updates, from 1. Raises StaleAttempt if the
        attempt does not hold the job, InvalidFields if updates are missing between the recorded ones and these,
        WrongState if a reported state cannot follow; then nothing has changed.
        """
        async with self._ledger.edit(job_id) as edit:
            edit.require_attempt(attempt)
            received = edit.job.updates_received
            for update in thinned(unseen(updates, first_update, received)):
                _record(edit, update)
            edit.change(
                lease_until=edit.now + self._lease_us,
                updates_received=max(received, first_update - 1 + len(updates)),
            )
        cancelling = edit.job.state is State.CANCELLING
        return Receipt(Directive.CANCEL if cancelling else Directive.CONTINUE, edit.job.updates_received)


def unseen(updates: Sequence[Update], first_update: int, received: int) -> Sequence[Update]:
    """The updates behind the first `received` of the attempt; raises InvalidFields if there is a gap before them."""
    if not updates:
        return updates
    if not 1 <= first_update <= received + 1:
        raise InvalidFields.one("first_update", f"expected 1 to {received + 1}, the next one, got {first_update}")
    return updates[received + 1 - first_update :]


def thinned(updates: Sequence[Update]) -> Sequence[Update]:
    """The updates with at most MAX_PROGRESS_EVENTS of progress, evenly chosen, the newest always among them."""
    progress = [i for i, update in enumerate(updates) if isinstance(update, Document) and update.kind is Kind.PROGRESS]
    surplus = len(progress) - MAX_PROGRESS_EVENTS
    if surplus <= 0:
        return updates
    kept = {progress[-1 - i * len(progress) // MAX_PROGRESS_EVENTS] for i in range(MAX_PROGRESS_EVENTS)}
    dropped = set(progress) - kept
    return [update for i, update in enumerate(updates) if i not in dropped]


def _record(edit: Edit, update: Update) -> None:
    match update:
        case State() as state:
            # A job that is being cancelled stays so, whatever its worker had done when it was told.
            if state is not edit.job.state and edit.job.state is not State.CANCELLING:
                edit.enter(state)
        case Document(Kind.EVALUATION, body):
            edit.change(evaluation=body)
            edit.tell(update)
        case Document(_, body):
            edit.change(progress=body)
            edit.tell(update)
        case LogLine():
            edit.tell(update)
