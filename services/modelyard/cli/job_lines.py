"""What happens to a job, in one line each."""

from __future__ import annotations

import unicodedata
from datetime import UTC

from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from modelyard.v1 import training_job_pb2 as pb

from .output import size

State = pb.TrainingJob.State
STATE_STYLES = {
    "SUCCEEDED": "green", "FAILED": "red", "CANCELLED": "yellow", "CANCELLING": "yellow", "QUEUED": "dim",
    "PAUSING": "yellow", "PAUSED": "yellow",
}  # fmt: skip


def state_name(state: State.ValueType) -> str:
    """The state without its enum's prefix."""
    return _name(State, state, "STATE_")


def cause_name(cause: pb.TrainingAttempt.EndCause.ValueType) -> str:
    """Why an attempt ended, in lower case words; empty while it runs."""
    return _name(pb.TrainingAttempt.EndCause, cause, "END_CAUSE_").lower().replace("_", " ") if cause else ""


def reason_name(reason: pb.TrainingJob.FailureReason.ValueType) -> str:
    """Why a job failed, without the enum's prefix."""
    return _name(pb.TrainingJob.FailureReason, reason, "FAILURE_REASON_")


def _name(enum: object, number: int, prefix: str) -> str:
    # A newer service may send a value that this client has no name for.
    known = number in enum.values()  # type: ignore[attr-defined]  # protobuf's enum wrappers have no common type
    return enum.Name(number).removeprefix(prefix) if known else str(number)  # type: ignore[attr-defined]


def line_of(event: pb.TrainingJobEvent) -> Text | None:
    """The event as a line; None for what is drawn otherwise: progress, and the evaluation, which is the outcome's."""
    kind = event.WhichOneof("payload")
    if kind == "state_change":
        content = _state_line(event)
    elif kind == "log_line":
        content = Text(f"  {harmless(event.log_line.text)}", "dim")
    elif kind == "checkpoint":
        content = Text(f"checkpoint saved at {place(event.checkpoint)}, {size(event.checkpoint.size_bytes)}", "dim")
    elif kind == "attempt_start":
        content = _start_line(event)
    elif kind == "attempt_end":
        content = _end_line(event)
    else:
        return None
    return Text.assemble((f"{hour(event.time)}  ", "dim"), content)


def _state_line(event: pb.TrainingJobEvent) -> Text:
    change = event.state_change
    state = state_name(change.state)
    text = Text(state.lower(), STATE_STYLES.get(state, "cyan"))
    if change.failure_reason:
        text.append(f" {reason_name(change.failure_reason)}", "red")
    if change.model_version:
        text.append(f" {change.model_version}", "default")
    if change.message:
        text.append(f": {harmless(change.message)}", "dim")
    return text


def _start_line(event: pb.TrainingJobEvent) -> Text:
    start = event.attempt_start
    begins = (
        f"from the checkpoint at {place(start.checkpoint)}" if start.HasField("checkpoint") else "from the beginning"
    )
    return Text(f"attempt {event.attempt} on {harmless(start.worker)}, {begins}", "cyan")


def _end_line(event: pb.TrainingJobEvent) -> Text:
    end = event.attempt_end
    text = Text(f"attempt {event.attempt} ended: {cause_name(end.cause)}", "yellow" if end.retried else "default")
    if end.message:
        text.append(f": {harmless(end.message)}", "dim")
    if end.retried:
        text.append(f"; tried again {f'from {hour(end.retry_time)}' if end.HasField('retry_time') else 'at once'}")
    return text


def place(checkpoint: pb.Checkpoint) -> str:
    """Where in the training a checkpoint is."""
    return f"step {checkpoint.step:,} (epoch {checkpoint.epoch:,})"


def hour(moment: Timestamp) -> str:
    """A time of day in the reader's own zone."""
    return moment.ToDatetime(tzinfo=UTC).astimezone().strftime("%H:%M:%S")


def harmless(text: str) -> str:
    """Somebody else's text without what would move the cursor or colour the terminal."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in "\t\n":
        return " "
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) == "Cc" else character
