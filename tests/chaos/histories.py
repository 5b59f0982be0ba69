"""Judges one job's history as its watcher got it: no gap, legal steps, and never moved by an attempt that was over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelyard.gateway.jobs import TERMINAL, TRANSITIONS, State
from modelyard.v1.training_job_pb2 import TrainingJob, TrainingJobEvent

_NOT_HELD = frozenset({State.QUEUED, State.PAUSED, *TERMINAL})
_OF_WORKERS = frozenset({"progress", "log_line", "evaluation", "checkpoint"})


def faults_of(events: Sequence[TrainingJobEvent]) -> Iterator[str]:
    """What is wrong with the history of a job that has ended; nothing if it is as it must be."""
    if not events:
        yield "no event"
        return
    yield from _numbers(events)
    yield from _states(events)
    yield from _attempts(events)
    yield from _progress(events)


def changes(events: Sequence[TrainingJobEvent]) -> list[tuple[TrainingJobEvent, State]]:
    """The events by which the job entered another state, with that state."""
    return [(event, _state(event.state_change.state)) for event in events if event.HasField("state_change")]


def _numbers(events: Sequence[TrainingJobEvent]) -> Iterator[str]:
    numbers = [event.sequence for event in events]
    if numbers != list(range(1, len(events) + 1)):
        broken = next(i for i, number in enumerate(numbers) if number != i + 1)
        yield f"sequence number {numbers[broken]} where {broken + 1} belongs"


def _states(events: Sequence[TrainingJobEvent]) -> Iterator[str]:
    before: State | None = None
    for event, state in changes(events):
        said = event.state_change.previous_state
        if before is not None and _state(said) is not before:
            yield f"event {event.sequence} says that the job was {_state(said)}, it was {before}"
        if before is not None and state not in TRANSITIONS[before]:
            yield f"event {event.sequence}: {before} became {state}"
        before = state
    if before not in TERMINAL:
        yield f"the history ends in {before}"
    if not events[-1].HasField("state_change"):
        yield "something comes after the end"


def _attempts(events: Sequence[TrainingJobEvent]) -> Iterator[str]:
    current, state = 0, State.QUEUED
    for event in events:
        state = _state(event.state_change.state) if event.HasField("state_change") else state
        opens = state is State.LEASED and event.attempt == current + 1
        if event.attempt != current and not opens and not event.HasField("attempt_start"):
            yield f"event {event.sequence} belongs to attempt {event.attempt}, while {current} was the current one"
        if state in _NOT_HELD and event.WhichOneof("payload") in _OF_WORKERS:
            yield f"event {event.sequence}: a worker told of something while the job was {state}"
        current = max(current, event.attempt)


def _progress(events: Sequence[TrainingJobEvent]) -> Iterator[str]:
    attempt, step = 0, 0
    for event in events:
        if not event.HasField("progress"):
            continue
        if event.attempt == attempt and event.progress.step < step:
            yield f"event {event.sequence}: attempt {attempt} went back from step {step} to {event.progress.step}"
        attempt, step = event.attempt, event.progress.step


def _state(number: TrainingJob.State.ValueType) -> State:
    return State(TrainingJob.State.Name(number).removeprefix("STATE_"))
