"""How long it took until a job that lost its worker was training again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from modelyard.gateway.jobs import State

from .callers import SubmittedJob
from .faults import Strike
from .histories import changes


@dataclass(frozen=True)
class Recovery:
    """One job that was hit while it trained."""

    fault: str
    seconds: float
    """From the blow to RUNNING in a later attempt, by the machine's one clock."""


def recoveries(strikes: Iterable[Strike], jobs: Mapping[str, SubmittedJob]) -> list[Recovery]:
    """Every job that was training when a fault took its worker, and that trained again. `jobs` by id."""
    found = []
    for strike in strikes:
        for held in strike.hit:
            job = jobs.get(held.job)
            again = _running_after(job, held.attempt) if job is not None and held.state == State.RUNNING else None
            if again is not None and again > strike.time:
                found.append(Recovery(strike.fault, again - strike.time))
    return found


def _running_after(job: SubmittedJob, attempt: int) -> float | None:
    for event, state in changes(job.events):
        if event.attempt > attempt and state is State.RUNNING:
            return event.time.ToMicroseconds() / 1e6
    return None
