"""What can go wrong in a job, and which reason the gateway hears for it."""

from __future__ import annotations

import torch

from modelyard.core.errors import InvalidFields
from modelyard.v1.training_job_pb2 import TrainingJob
from modelyard.v1.worker_service_pb2 import TrainingFailure

MAX_MESSAGE = 4096
# PyTorch's CPU allocator raises a plain RuntimeError; this is the one part of its text that is the same everywhere.
_CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"


class JobFailure(Exception):
    """A failure that the job's owner can understand; the message is for people."""

    reason = TrainingJob.FAILURE_REASON_INTERNAL


class DataUnusable(JobFailure):
    """The data does not allow the training."""

    reason = TrainingJob.FAILURE_REASON_DATA


class Diverged(JobFailure):
    """The loss or a prediction became infinite or not a number."""

    reason = TrainingJob.FAILURE_REASON_DIVERGED


class GateRejected(JobFailure):
    """A metric gate of the spec said no."""

    reason = TrainingJob.FAILURE_REASON_GATE_REJECTED


class ParityFailed(JobFailure):
    """The exported graph does not compute what PyTorch computes."""

    reason = TrainingJob.FAILURE_REASON_PARITY_FAILED


class TrainingRaised(JobFailure):
    """Building or training the declared network raised something unforeseen."""

    reason = TrainingJob.FAILURE_REASON_USER_CODE


def failure_of(error: Exception) -> TrainingFailure:
    """What the gateway is told of `error`."""
    return TrainingFailure(reason=_reason(error), message=_message(error)[:MAX_MESSAGE])


def is_foreseen(error: Exception) -> bool:
    """Whether the message says it all; anything else is worth a traceback in the job's log."""
    if isinstance(error, JobFailure):
        return not isinstance(error, TrainingRaised)
    return isinstance(error, InvalidFields) or is_out_of_memory(error)


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, PyTorch on the CPU or PyTorch on an accelerator could not get memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _CPU_OUT_OF_MEMORY in str(error)


def _reason(error: Exception) -> TrainingJob.FailureReason.ValueType:
    if isinstance(error, JobFailure):
        return error.reason
    if is_out_of_memory(error):
        return TrainingJob.FAILURE_REASON_OUT_OF_MEMORY
    if isinstance(error, InvalidFields):
        return TrainingJob.FAILURE_REASON_DATA
    return TrainingJob.FAILURE_REASON_INTERNAL


def _message(error: Exception) -> str:
    if isinstance(error, JobFailure | InvalidFields):
        return str(error)
    return f"{type(error).__name__}: {error}"
