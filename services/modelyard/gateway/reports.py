"""What a worker reports: the lease is renewed, news is recorded once, and the gateway's wish goes back."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from modelyard.core.errors import InvalidFields

from . import checkpoints
from .checkpoints import Checkpoint
from .events import Document, Kind, LogLine
from .jobs import STOPPING, Job, State
from .ledger import Edit, Ledger

MAX_PROGRESS_EVENTS = 50
"""Progress events kept of one report. A worker that reports every 10 s and updates 4 times a second stays below."""


class Directive(Enum):
    """What the worker is to do."""

    CONTINUE = auto()
    CANCEL = auto()
    PAUSE = auto()
    PREEMPT = auto()
    DEADLINE = auto()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a report."""

    directive: Directive
    updates_received: int
    """How many updates of this attempt are recorded."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint whose blob the worker has uploaded."""

    epoch: int
    step: int
    digest: str
    size_bytes: int


Update = State | Document | LogLine | Saved
"""A state that the worker entered, progress or an evaluation, a printed line, or a checkpoint."""


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
            news = thinned(unseen(updates, first_update, received))
            kept = await _kept(edit, news)
            for update in news:
                _record(edit, update, kept)
            edit.change(
                lease_until=edit.now + self._lease_us,
                updates_received=max(received, first_update - 1 + len(updates)),
            )
        return Receipt(directive(edit.job, edit.now), edit.job.updates_received)

    async def announce(self, job_id: str, attempt: int, saved: Saved) -> None:
        """Keeps the blob of a checkpoint that the attempt is about to look for in the artifact store, or to upload.

        Raises StaleAttempt if the attempt does not hold the job, WrongState while the blob is being removed.
        """
        async with self._ledger.edit(job_id) as edit:
            edit.require_attempt(attempt)
            await checkpoints.announce(edit.connection, job_id, _checkpoint(edit, saved))


def directive(job: Job, now: int) -> Directive:
    """What the worker that holds the job is to do."""
    if job.is_publishing:
        return Directive.CONTINUE  # the result is safe; there is nothing left to stop
    if job.state is State.CANCELLING:
        return Directive.CANCEL
    if job.run_until is not None and job.run_until <= now:
        return Directive.DEADLINE
    if job.state is State.PAUSING:
        return Directive.PAUSE
    return Directive.PREEMPT if job.is_preempted else Directive.CONTINUE


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


async def _kept(edit: Edit, updates: Sequence[Update]) -> set[str]:
    """Digests of reported checkpoints to rely on. Another one may have been removed since its worker found it."""
    digests = {update.digest for update in updates if isinstance(update, Saved)}
    return await checkpoints.kept(edit.connection, edit.job.id, digests) if digests else digests


def _record(edit: Edit, update: Update, kept: Container[str]) -> None:
    match update:
        case State() as state:
            # A job that is to stop stays so, whatever its worker had done when it was told.
            if state is not edit.job.state and edit.job.state not in STOPPING:
                edit.enter(state)
        case Document(Kind.EVALUATION, body):
            edit.change(evaluation=body)
            edit.tell(update)
        case Document(_, body):
            edit.change(progress=body)
            edit.tell(update)
        case LogLine():
            edit.tell(update)
        case Saved() as saved:
            wanted = saved.digest in kept and saved.step >= edit.job.checkpoint_step
            edit.add_checkpoint(_checkpoint(edit, saved), wanted=wanted)


def _checkpoint(edit: Edit, saved: Saved) -> Checkpoint:
    return Checkpoint(
        attempt=edit.job.attempt,
        epoch=saved.epoch,
        step=saved.step,
        digest=saved.digest,
        size_bytes=saved.size_bytes,
        create_time=edit.now,
    )
