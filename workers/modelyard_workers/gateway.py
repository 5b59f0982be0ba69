"""The worker's end of WorkerService: its calls, with deadlines, and errors that can be branched on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import grpc

from modelyard.core.errors import RemoteError
from modelyard.core.retries import is_transient
from modelyard.v1 import worker_service_pb2 as pb
from modelyard.v1.training_job_pb2 import TrainingJob
from modelyard.v1.worker_service_pb2_grpc import WorkerServiceStub

CALL_S = 10.0
FINISH_S = 60.0
"""Finishing a success includes the registry reading the graph."""

_NO_LONGER_OURS = frozenset({"STALE_ATTEMPT"})
_TOKEN_TROUBLE = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})

T = TypeVar("T")


def is_stale(error: RemoteError) -> bool:
    """Whether the gateway says that the attempt is over: the fence, or the job is gone altogether."""
    return error.reason in _NO_LONGER_OURS or error.code is grpc.StatusCode.NOT_FOUND


def may_pass(error: RemoteError) -> bool:
    """Whether the same call may succeed later. Token trouble belongs here: tokens are rotated in place."""
    return is_transient(error) or error.code in _TOKEN_TROUBLE


class Gateway:
    """The gateway as a worker sees it. Everything raises RemoteError."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = WorkerServiceStub(channel)

    def claim(self, name: str, worker: str, node: str = "") -> pb.ClaimTrainingJobResponse:
        """Asks for a job, and may get another one; not claimed means that there is nothing to do."""
        request = pb.ClaimTrainingJobRequest(name=name, worker=worker, node=node)
        return _translated(lambda: self._stub.ClaimTrainingJob(request, timeout=CALL_S))

    def report(self, request: pb.ReportTrainingJobRequest, timeout_s: float = CALL_S) -> pb.ReportTrainingJobResponse:
        """Renews the lease and delivers updates."""
        return _translated(lambda: self._stub.ReportTrainingJob(request, timeout=timeout_s))

    def announce(self, request: pb.AnnounceCheckpointRequest) -> None:
        """Says that a checkpoint is about to be uploaded; may be repeated."""
        _translated(lambda: self._stub.AnnounceCheckpoint(request, timeout=CALL_S))

    def finish(self, request: pb.FinishTrainingJobRequest) -> TrainingJob:
        """Ends the attempt; may be repeated until it is answered."""
        timeout_s = FINISH_S if request.HasField("succeeded") else CALL_S
        return _translated(lambda: self._stub.FinishTrainingJob(request, timeout=timeout_s))

    def report_worker(self, request: pb.ReportWorkerRequest, timeout_s: float | None = None) -> pb.ReportWorkerResponse:
        """Says that this worker is there."""
        return _translated(lambda: self._stub.ReportWorker(request, timeout=timeout_s or CALL_S))


def _translated(call: Callable[[], T]) -> T:
    try:
        return call()
    except grpc.RpcError as error:
        raise RemoteError.from_rpc(error) from error
    except OSError as error:
        # The channel reads the token at each call, and the file may be away while it is being replaced.
        raise RemoteError(grpc.StatusCode.UNAUTHENTICATED, f"the token cannot be read: {error}") from error
