"""modelyard.v1.TrainingService: converts, delegates, converts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc.aio

from modelyard.core.interceptors import current_caller
from modelyard.core.names import MODEL, TRAINING_JOB, check_request_id
from modelyard.core.paging import page_size
from modelyard.core.permissions import Permission
from modelyard.core.tokens import Caller
from modelyard.v1 import training_job_pb2, training_service_pb2, training_service_pb2_grpc

from .cancellation import Cancellation
from .converters import from_create_request, from_states, to_event, to_training_job
from .explanations import Explanations
from .ledger import Ledger
from .listing import list_jobs
from .presence import Workers
from .queueing_converters import to_explanation, to_queue, to_worker
from .queues import read_queues
from .scheduling import Queues
from .submission import Submissions
from .watch import Watch

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class TrainingServicer(training_service_pb2_grpc.TrainingServiceServicer):
    """Submits jobs and follows them, each caller in its own tenant."""

    ledger: Ledger
    submissions: Submissions
    cancellation: Cancellation
    watch: Watch
    queues: Queues
    workers: Workers
    explanations: Explanations

    async def CreateTrainingJob(
        self, request: training_service_pb2.CreateTrainingJobRequest, _context: _Context
    ) -> training_job_pb2.TrainingJob:
        """See the proto."""
        submission = from_create_request(request, self.queues)
        job = await self.submissions.submit(submission, current_caller(), validate_only=request.validate_only)
        return to_training_job(job)

    async def GetTrainingJob(
        self, request: training_service_pb2.GetTrainingJobRequest, _context: _Context
    ) -> training_job_pb2.TrainingJob:
        """See the proto."""
        return to_training_job(await self.ledger.get(job_id(request.name), tenant=visible_tenant(current_caller())))

    async def ListTrainingJobs(
        self, request: training_service_pb2.ListTrainingJobsRequest, _context: _Context
    ) -> training_service_pb2.ListTrainingJobsResponse:
        """See the proto."""
        jobs, next_page_token = await list_jobs(
            self.ledger.database,
            tenant=visible_tenant(current_caller()),
            states=from_states(request.states),
            model=MODEL.parse(request.model, "model")["model"] if request.model else "",
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        return training_service_pb2.ListTrainingJobsResponse(
            training_jobs=map(to_training_job, jobs), next_page_token=next_page_token
        )

    async def CancelTrainingJob(
        self, request: training_service_pb2.CancelTrainingJobRequest, _context: _Context
    ) -> training_job_pb2.TrainingJob:
        """See the proto."""
        caller = current_caller()
        job = await self.cancellation.cancel(
            job_id(request.name),
            tenant=visible_tenant(caller),
            subject=caller.subject,
            request_id=check_request_id(request.request_id),
        )
        return to_training_job(job)

    async def WatchTrainingJob(
        self, request: training_service_pb2.WatchTrainingJobRequest, _context: _Context
    ) -> AsyncIterator[training_job_pb2.TrainingJobEvent]:
        """See the proto."""
        tenant = visible_tenant(current_caller())
        events = self.watch.events(
            job_id(request.name), request.after_sequence, tenant=tenant, history_only=request.history_only
        )
        async for event in events:
            yield to_event(event)

    async def ExplainTrainingJob(
        self, request: training_service_pb2.ExplainTrainingJobRequest, _context: _Context
    ) -> training_service_pb2.TrainingJobExplanation:
        """See the proto."""
        tenant = visible_tenant(current_caller())
        explanation = await self.explanations.explain(job_id(request.name), tenant=tenant)
        return to_explanation(explanation, to_training_job(explanation.job))

    async def ListQueues(
        self, _request: training_service_pb2.ListQueuesRequest, _context: _Context
    ) -> training_service_pb2.ListQueuesResponse:
        """See the proto."""
        async with self.ledger.database.read() as connection:
            found = await read_queues(connection, self.queues, await self.workers.read(connection))
        return training_service_pb2.ListQueuesResponse(queues=map(to_queue, found))

    async def ListWorkers(
        self, _request: training_service_pb2.ListWorkersRequest, _context: _Context
    ) -> training_service_pb2.ListWorkersResponse:
        """See the proto."""
        workers = await self.workers.visible(tenant=visible_tenant(current_caller()))
        return training_service_pb2.ListWorkersResponse(workers=map(to_worker, workers))


def job_id(name: str) -> str:
    """The id in a job's name; raises InvalidFields."""
    return TRAINING_JOB.parse(name, "name")["training_job"]


def visible_tenant(caller: Caller) -> str | None:
    """The tenant whose resources the caller sees; None for all of them."""
    return None if caller.may(Permission.TENANTS_ALL) else caller.tenant
