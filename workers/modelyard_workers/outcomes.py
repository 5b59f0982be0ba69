"""How an attempt ended, as the gateway is told: from the trainer's result, or from how the trainer died."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from google.protobuf import json_format

from modelyard.v1.training_job_pb2 import TrainingAttempt, TrainingJob
from modelyard.v1.worker_service_pb2 import (
    FinishTrainingJobRequest,
    TrainingCancelled,
    TrainingFailure,
    TrainingReleased,
)

from .interruptions import Interruption
from .supervision import Exit

MESSAGE_CHARACTERS = 4_096
"""The most characters of a failure's message, as the API says."""

RESULT_FILE = "result.json"
MODEL_FILE = "model.onnx"

_RESULT_BYTES = 4 * 1024 * 1024
_KILLED_CHILD = "the kernel killed a process here: memory ran out"
_UNEXPLAINED = frozenset({TrainingJob.FAILURE_REASON_USER_CODE, TrainingJob.FAILURE_REASON_INTERNAL})
_RELEASES = {
    Interruption.SHUTDOWN: TrainingAttempt.END_CAUSE_WORKER_STOPPED,
    Interruption.PREEMPTED: TrainingAttempt.END_CAUSE_PREEMPTED,
    Interruption.PAUSED: TrainingAttempt.END_CAUSE_PAUSED,
    Interruption.FAULT: TrainingAttempt.END_CAUSE_WORKER_FAULT,
}


class BrokenResult(Exception):
    """What the trainer left is not what it should be; the message says what is wrong with it."""


def cancelled() -> FinishTrainingJobRequest:
    """The outcome of a job that was asked to stop."""
    return FinishTrainingJobRequest(cancelled=TrainingCancelled())


def failure(reason: TrainingJob.FailureReason.ValueType, message: str) -> FinishTrainingJobRequest:
    """The outcome of a job that failed."""
    return FinishTrainingJobRequest(failed=TrainingFailure(reason=reason, message=_cut(message)))


def internal_failure(message: str) -> FinishTrainingJobRequest:
    """The outcome of a job that failed through no fault of its own."""
    return failure(TrainingJob.FAILURE_REASON_INTERNAL, message)


def released(cause: TrainingAttempt.EndCause.ValueType, message: str) -> FinishTrainingJobRequest:
    """The outcome of a job that is given back unfinished."""
    return FinishTrainingJobRequest(released=TrainingReleased(cause=cause, message=_cut(message)))


def worker_fault(message: str) -> FinishTrainingJobRequest:
    """The outcome of a job that could not go on here, through no fault of its own."""
    return released(TrainingAttempt.END_CAUSE_WORKER_FAULT, message)


def interrupted(reason: Interruption, message: str) -> FinishTrainingJobRequest | None:
    """The outcome of a job that was stopped; None if there is nobody to tell."""
    if reason is Interruption.CANCELLED:
        return cancelled()
    if reason is Interruption.DEADLINE:
        return failure(TrainingJob.FAILURE_REASON_DEADLINE, message)
    cause = _RELEASES.get(reason)
    return None if cause is None else released(cause, message)


def open_regular(path: Path) -> int:
    """A descriptor of a file that the trainer wrote; raises BrokenResult unless it is a plain file of its own.

    The trainer runs foreign code: a link or a pipe in its folder must not make the worker read something else.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BrokenResult(f"the trainer left no {path.name}") from None
    except OSError as error:
        raise BrokenResult(f"the trainer's {path.name} cannot be read: {error.strerror}") from error
    if not os.path.isfile(f"/proc/self/fd/{descriptor}"):  # noqa: PTH113
        os.close(descriptor)
        raise BrokenResult(f"the trainer's {path.name} is not a plain file")
    return descriptor


def read_result(workdir: Path) -> FinishTrainingJobRequest | None:
    """The outcome that the trainer wrote; None if it wrote none. Raises BrokenResult if it is unusable."""
    path = workdir / RESULT_FILE
    if not path.exists():
        return None
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(_RESULT_BYTES + 1)
    if len(content) > _RESULT_BYTES:
        raise BrokenResult(f"the trainer's {RESULT_FILE} is larger than {_RESULT_BYTES} bytes")
    result = FinishTrainingJobRequest()
    try:
        json_format.Parse(content, result)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenResult(f"the trainer's {RESULT_FILE} is malformed: {error}") from error
    if result.WhichOneof("outcome") not in {"succeeded", "failed"}:
        raise BrokenResult(f"the trainer's {RESULT_FILE} says neither `succeeded` nor `failed`")
    return result


def failure_of(end: Exit, *, memory_ran_out: bool) -> FinishTrainingJobRequest:
    """The outcome of a trainer that ended without a result. `memory_ran_out`: the kernel killed somebody meanwhile.

    SIGKILL without that is somebody's doing on this machine: the job is tried again, within the limits of such retries,
    since a trainer that kills itself looks the same.
    """
    if end.code == -signal.SIGKILL and not memory_ran_out:
        return worker_fault(_with_last_words("somebody killed the trainer (SIGKILL)", end))
    if end.code == -signal.SIGKILL and memory_ran_out:
        reason, what = TrainingJob.FAILURE_REASON_OUT_OF_MEMORY, "the kernel killed the trainer: memory ran out"
    elif end.code > 0 and memory_ran_out:
        reason = TrainingJob.FAILURE_REASON_OUT_OF_MEMORY
        what = f"{_KILLED_CHILD}; then the trainer ended with exit code {end.code}"
    elif end.code >= 0:
        reason, what = TrainingJob.FAILURE_REASON_INTERNAL, f"the trainer ended with exit code {end.code} and no result"
    else:
        reason, what = TrainingJob.FAILURE_REASON_USER_CODE, f"the trainer was killed by {_signal_name(-end.code)}"
    return failure(reason, _with_last_words(what, end))


def _with_last_words(what: str, end: Exit) -> str:
    return f"{what}; its last words:\n{end.stderr_tail}" if end.stderr_tail else what


def blame_memory(result: FinishTrainingJobRequest) -> FinishTrainingJobRequest:
    """The result of a trainer of which the kernel may have killed a child for want of memory.

    The trainer itself only sees that a child is gone. A failure that it could not explain is explained by that.
    """
    if result.failed.reason not in _UNEXPLAINED:
        return result
    return failure(TrainingJob.FAILURE_REASON_OUT_OF_MEMORY, f"{_KILLED_CHILD}; then: {result.failed.message}")


def _cut(message: str) -> str:
    return message if len(message) <= MESSAGE_CHARACTERS else message[: MESSAGE_CHARACTERS - 1] + "…"


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
