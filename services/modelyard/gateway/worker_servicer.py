"""modelyard.v1.WorkerService: converts, delegates, converts. Internal: a worker works for every tenant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc.aio

from modelyard.core.errors import InvalidFields
from modelyard.core.names import TRAINING_JOB
from modelyard.v1 import training_job_pb2, worker_service_pb2, worker_service_pb2_grpc

from .attempt_converters import from_cause, from_checkpoint
from .claims import Claims
from .converters import (
    cut_text,
    from_artifact,
    from_asker,
    from_failure,
    from_report,
    to_claim,
    to_receipt,
    to_training_job,
)
from .finishing import Finishing
from .presence import Workers
from .queueing_converters import from_presence
from .reports import Reports
from .times import to_duration

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class WorkerServicer(worker_service_pb2_grpc.WorkerServiceServicer):
    """Hands jobs to workers and takes what becomes of them."""

    claims: Claims
    reports: Reports
    finishing: Finishing
    workers: Workers
    lease_s: float
    report_interval_s: float

    async def ClaimTrainingJob(
        self, request: worker_service_pb2.ClaimTrainingJobRequest, _context: _Context
    ) -> worker_service_pb2.ClaimTrainingJobResponse:
        """See the proto."""
        claim = await self.claims.claim(_job_id(request.name), from_asker(request))
        return to_claim(claim, self.lease_s, self.report_interval_s)

    async def ReportTrainingJob(
        self, request: worker_service_pb2.ReportTrainingJobRequest, _context: _Context
    ) -> worker_service_pb2.ReportTrainingJobResponse:
        """See the proto."""
        updates = from_report(request)
        receipt = await self.reports.report(_job_id(request.name), request.attempt, request.first_update, updates)
        return to_receipt(receipt, self.lease_s)

    async def AnnounceCheckpoint(
        self, request: worker_service_pb2.AnnounceCheckpointRequest, _context: _Context
    ) -> worker_service_pb2.AnnounceCheckpointResponse:
        """See the proto."""
        checkpoint = from_checkpoint(request.checkpoint, "checkpoint")
        await self.reports.announce(_job_id(request.name), request.attempt, checkpoint)
        return worker_service_pb2.AnnounceCheckpointResponse()

    async def FinishTrainingJob(
        self, request: worker_service_pb2.FinishTrainingJobRequest, _context: _Context
    ) -> training_job_pb2.TrainingJob:
        """See the proto."""
        job_id = _job_id(request.name)
        match request.WhichOneof("outcome"):
            case "succeeded":
                job = await self.finishing.succeed(job_id, request.attempt, from_artifact(request.succeeded))
            case "failed":
                job = await self.finishing.fail(job_id, request.attempt, *from_failure(request.failed))
            case "cancelled":
                job = await self.finishing.cancel(job_id, request.attempt)
            case "released":
                cause, message = from_cause(request.released), cut_text(request.released.message)
                job = await self.finishing.release(job_id, request.attempt, cause, message)
            case _:
                raise InvalidFields.one("outcome", "expected exactly one of succeeded, failed, cancelled, released")
        return to_training_job(job)

    async def ReportWorker(
        self, request: worker_service_pb2.ReportWorkerRequest, _context: _Context
    ) -> worker_service_pb2.ReportWorkerResponse:
        """See the proto."""
        await self.workers.report(from_presence(request))
        return worker_service_pb2.ReportWorkerResponse(report_interval=to_duration(self.workers.report_interval_s))


def _job_id(name: str) -> str:
    return TRAINING_JOB.parse(name, "name")["training_job"]
