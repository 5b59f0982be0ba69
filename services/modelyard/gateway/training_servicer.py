"""modelyard.v1.TrainingService: converts, delegates, converts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypedDict

import grpc.aio

from modelyard.core.interceptors import current_caller
from modelyard.core.names import MODEL, TRAINING_JOB, check_request_id
from modelyard.core.paging import page_size
from modelyard.core.permissions import Permission
from modelyard.core.tokens import Caller
from modelyard.v1 import training_job_pb2, training_service_pb2, training_service_pb2_grpc

from .attempt_converters import from_max_points, to_attempt, to_course
from .attempts import list_attempts
from .cancellation import Cancellation
from .converters import from_create_request, from_states, to_event, to_training_job
from .explanations import Explanations
from .jobs import Job
from .ledger import Ledger
from .listing import list_jobs
from .pausing import Pausing
from .presence import Workers
from .progress import read_course
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
    pausing: Pausing
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
        return to_training_job(await self.cancellation.cancel(job_id(request.name), **_asked(request.request_id)))

    async def PauseTrainingJob(
        self, request: training_service_pb2.PauseTrainingJobRequest, _context: _Context
    ) -> training_job_pb2.TrainingJob:
        """See the proto."""
        return to_training_job(await self.pausing.pause(job_id(request.name), **_asked(request.request_id)))

    async def ResumeTrainingJob(
        self, request: training_service_pb2.ResumeTrainingJobRequest, _context: _Context
    ) -> training_job_pb2.TrainingJob:
        """See the proto."""
        return to_training_job(await self.pausing.resume(job_id(request.name), **_asked(request.request_id)))

    async def PreemptTrainingJob(
        self, request: training_service_pb2.PreemptTrainingJobRequest, _context: _Context
    ) -> training_job_pb2.TrainingJob:
        """See the proto."""
        return to_training_job(await self.pausing.preempt(job_id(request.name), **_asked(request.request_id)))

    async def ListTrainingAttempts(
        self, request: training_service_pb2.ListTrainingAttemptsRequest, _context: _Context
    ) -> training_service_pb2.ListTrainingAttemptsResponse:
        """See the proto."""
        job = await self._visible(request.parent)
        attempts, next_page_token = await list_attempts(
            self.ledger.database, job.id, page_size=page_size(request.page_size), page_token=request.page_token
        )
        return training_service_pb2.ListTrainingAttemptsResponse(
            training_attempts=map(to_attempt, attempts), next_page_token=next_page_token
        )

    async def ListTrainingProgress(
        self, request: training_service_pb2.ListTrainingProgressRequest, _context: _Context
    ) -> training_service_pb2.ListTrainingProgressResponse:
        """See the proto."""
        job = await self._visible(request.parent)
        return to_course(await read_course(self.ledger.database, job.id, from_max_points(request.max_points)))

    async def _visible(self, parent: str) -> Job:
        return await self.ledger.get(job_id(parent, "parent"), tenant=visible_tenant(current_caller()))

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


class _Asked(TypedDict):
    """Who asks for a change, and under which request id."""

    tenant: str | None
    subject: str
    request_id: str


def _asked(request_id: str) -> _Asked:
    caller = current_caller()
    return _Asked(
        tenant=visible_tenant(caller), subject=caller.subject, request_id=check_request_id(request_id)
    )  # fmt: skip


def job_id(name: str, field: str = "name") -> str:
    """The id in a job's name; raises InvalidFields."""
    return TRAINING_JOB.parse(name, field)["training_job"]


def visible_tenant(caller: Caller) -> str | None:
    """The tenant whose resources the caller sees; None for all of them."""
    return None if caller.may(Permission.TENANTS_ALL) else caller.tenant
