"""Between the wire and the domain, for what is about attempts, checkpoints and progress: see `converters`."""

from __future__ import annotations

from collections.abc import Iterable

from modelyard.core.errors import InvalidFields
from modelyard.core.names import check_digest
from modelyard.v1 import training_job_pb2, training_service_pb2, worker_service_pb2

from .attempts import RELEASES, Attempt, EndCause
from .checkpoints import Checkpoint
from .events import AttemptEnd, AttemptStart, Document, Event
from .reports import Saved
from .times import to_timestamp

MAX_POINTS = 10_000
DEFAULT_POINTS = 500

_Attempt = training_job_pb2.TrainingAttempt
_Event = training_job_pb2.TrainingJobEvent
_CAUSES = {cause: _Attempt.EndCause.Value(f"END_CAUSE_{cause}") for cause in EndCause}
_RELEASES_BACK = {_CAUSES[cause]: cause for cause in EndCause if cause in RELEASES}


def to_attempt(attempt: Attempt) -> training_job_pb2.TrainingAttempt:
    """One attempt as callers see it."""
    message = _Attempt(
        attempt=attempt.attempt,
        worker=attempt.worker,
        node=attempt.node,
        start_time=to_timestamp(attempt.start_time),
        message=attempt.message,
        resumed_step=attempt.resumed_step,
    )
    if attempt.end_cause is not None and attempt.end_time is not None:
        message.end_cause = _CAUSES[attempt.end_cause]
        message.end_time.CopyFrom(to_timestamp(attempt.end_time))
    return message


def to_checkpoint(checkpoint: Checkpoint) -> training_job_pb2.Checkpoint:
    """A recorded checkpoint."""
    return training_job_pb2.Checkpoint(
        attempt=checkpoint.attempt,
        epoch=checkpoint.epoch,
        step=checkpoint.step,
        digest=checkpoint.digest,
        size_bytes=checkpoint.size_bytes,
        create_time=to_timestamp(checkpoint.create_time),
    )


def to_attempt_start(start: AttemptStart) -> training_job_pb2.TrainingJobEvent.AttemptStart:
    """Of a job's history."""
    checkpoint = None if start.checkpoint is None else to_checkpoint(start.checkpoint)
    return _Event.AttemptStart(worker=start.worker, checkpoint=checkpoint)


def to_attempt_end(end: AttemptEnd) -> training_job_pb2.TrainingJobEvent.AttemptEnd:
    """Of a job's history."""
    return _Event.AttemptEnd(
        cause=_CAUSES[end.cause],
        message=end.message,
        retried=end.retried,
        retry_time=None if end.retry_time is None else to_timestamp(end.retry_time),
    )


def from_checkpoint(message: training_job_pb2.Checkpoint, path: str) -> Saved:
    """What a worker says of a checkpoint; raises InvalidFields."""
    check_digest(message.digest, f"{path}.digest")
    for name in ("epoch", "step", "size_bytes"):
        if getattr(message, name) < 0:
            raise InvalidFields.one(f"{path}.{name}", f"expected 0 or more, got {getattr(message, name)}")
    return Saved(message.epoch, message.step, message.digest, message.size_bytes)


def from_cause(released: worker_service_pb2.TrainingReleased) -> EndCause:
    """Why a job is given back; raises InvalidFields."""
    cause = _RELEASES_BACK.get(released.cause)
    if cause is None:
        raise InvalidFields.one(
            "released.cause", f"expected one of {', '.join(_RELEASES_BACK.values())}; got {released.cause}"
        )
    return cause


def from_max_points(max_points: int) -> int:
    """How many points to answer at most; raises InvalidFields."""
    if not 0 <= max_points <= MAX_POINTS:
        raise InvalidFields.one("max_points", f"expected 1 to {MAX_POINTS}, or 0 for the default; got {max_points}")
    return max_points or DEFAULT_POINTS


def to_course(points: Iterable[Event]) -> training_service_pb2.ListTrainingProgressResponse:
    """The course of a job's progress."""
    response = training_service_pb2.ListTrainingProgressResponse()
    for event in points:
        if isinstance(event.payload, Document):
            point = response.points.add(time=to_timestamp(event.time), attempt=event.attempt)
            point.progress.ParseFromString(event.payload.body)
    return response
