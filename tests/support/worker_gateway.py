"""The gateway as workers see it, for their tests: keeps the rules of WorkerService and does what a test asks for.

The real one is tested with the gateway, and both together from end to end.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from google.protobuf import duration_pb2

from modelyard.core import errors
from modelyard.core.serving import Service
from modelyard.v1 import worker_service_pb2 as pb
from modelyard.v1 import worker_service_pb2_grpc
from modelyard.v1.dataset_pb2 import Dataset
from modelyard.v1.training_job_pb2 import Checkpoint, TrainingJob

Outcome = pb.FinishTrainingJobRequest

_STATES = {
    "succeeded": TrainingJob.STATE_SUCCEEDED,
    "failed": TrainingJob.STATE_FAILED,
    "cancelled": TrainingJob.STATE_CANCELLED,
    "released": TrainingJob.STATE_QUEUED,
}


@dataclass
class WorkerGateway(worker_service_pb2_grpc.WorkerServiceServicer):
    """Claims, reports and conclusions of any number of jobs; public fields steer and show what happens."""

    report_interval_s: float = 0.5
    lease_s: float = 45.0
    directive: pb.ReportTrainingJobResponse.Directive.ValueType = pb.ReportTrainingJobResponse.DIRECTIVE_CONTINUE
    stale: bool = False
    """Every attempt is told that it is no longer the current one."""
    lost_answers: int = 0
    """So many reports are taken in and then answered UNAVAILABLE."""
    refused_announcements: int = 0
    """So many announcements are told that the same content is being removed."""
    announced: list[Checkpoint] = field(default_factory=list)
    """The checkpoints that were announced, in order."""
    lost_finishes: int = 0
    """So many conclusions are answered UNAVAILABLE without being taken in."""
    refused_outcomes: set[str] = field(default_factory=set)
    """Kinds of outcome that are answered INVALID_ARGUMENT."""
    refused_log_line: str = ""
    """A report with this line is answered INVALID_ARGUMENT."""
    claims: list[str] = field(default_factory=list)
    """Who claimed, in order."""
    nodes: list[str] = field(default_factory=list)
    """The machines of those who claimed."""
    instead: dict[str, str] = field(default_factory=dict)
    """Who asks for the one job gets the other, whose turn it is."""
    presences: list[pb.ReportWorkerRequest] = field(default_factory=list)
    """What workers said of themselves."""
    knows_presence: bool = True
    """Whether ReportWorker is answered at all."""
    reports: list[pb.ReportTrainingJobRequest] = field(default_factory=list)
    updates: list[pb.TrainingUpdate] = field(default_factory=list)
    """Every update once, in order."""
    finished: dict[str, Outcome] = field(default_factory=dict)
    """How each job ended, by name."""
    _claimable: dict[str, pb.ClaimTrainingJobResponse] = field(default_factory=dict)
    _received: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def submit(self, name: str, dataset_digest: str, *, attempt: int = 1, checkpoint: Checkpoint | None = None) -> str:
        """Makes a job claimable once; answers its name."""
        job = TrainingJob(
            name=name, attempt=attempt, dataset_digest=dataset_digest, state=TrainingJob.STATE_LEASED,
            checkpoint=checkpoint,
        )  # fmt: skip
        return self.offer(job, Dataset(name="datasets/test", digest=dataset_digest, format=Dataset.FORMAT_CSV))

    def offer(self, job: TrainingJob, dataset: Dataset) -> str:
        """Makes this job claimable once; answers its name."""
        name = job.name
        self.finished.pop(name, None)
        self._received.pop(name, None)
        self._claimable[name] = pb.ClaimTrainingJobResponse(
            claimed=True,
            training_job=job,
            dataset=dataset,
            lease_duration=_duration(self.lease_s),
            report_interval=_duration(self.report_interval_s),
        )
        return name

    @property
    def states(self) -> list[str]:
        """The states that were reported, without their prefix."""
        states = [update.state for update in self.updates if update.HasField("state")]
        return [TrainingJob.State.Name(state).removeprefix("STATE_") for state in states]

    @property
    def log_lines(self) -> list[str]:
        """The log lines that were reported."""
        return [update.log_line for update in self.updates if update.HasField("log_line")]

    def logged_number(self, word: str) -> int | None:
        """The number that follows `word` at the beginning of a reported log line."""
        numbers = (int(line.split()[1]) for line in self.log_lines if line.startswith(f"{word} "))
        return next(numbers, None)

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints that were reported."""
        return [update.checkpoint for update in self.updates if update.HasField("checkpoint")]

    @property
    def steps(self) -> list[int]:
        """The steps of the progress that was reported."""
        return [update.progress.step for update in self.updates if update.HasField("progress")]

    def service(self) -> Service:
        """Ready for serving."""

        def register(server: grpc.aio.Server) -> None:
            worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(self, server)

        return Service(register, ["modelyard.v1.WorkerService"])

    async def ClaimTrainingJob(self, request: pb.ClaimTrainingJobRequest, context: Any) -> pb.ClaimTrainingJobResponse:
        self.claims.append(request.worker)
        self.nodes.append(request.node)
        name = self.instead.pop(request.name, request.name)
        return self._claimable.pop(name, pb.ClaimTrainingJobResponse(claimed=False))

    async def ReportTrainingJob(
        self, request: pb.ReportTrainingJobRequest, context: Any
    ) -> pb.ReportTrainingJobResponse:
        self._check_fence(request.name)
        if self.refused_log_line and any(update.log_line == self.refused_log_line for update in request.updates):
            raise errors.InvalidFields.one("updates", "this line is refused")
        self.reports.append(request)
        received = self._received.get(request.name, 0)
        assert request.first_update <= received + 1, "an update is missing"
        new = request.updates[received + 1 - request.first_update :]
        reported = {update.checkpoint.digest for update in new if update.HasField("checkpoint")}
        assert reported <= {checkpoint.digest for checkpoint in self.announced}, "a checkpoint was not announced"
        self.updates.extend(new)
        self._received[request.name] = received + len(new)
        if self.lost_answers:
            self.lost_answers -= 1
            raise errors.Unavailable("the answer is lost")
        return pb.ReportTrainingJobResponse(
            directive=self.directive,
            lease_duration=_duration(self.lease_s),
            updates_received=self._received[request.name],
        )

    async def AnnounceCheckpoint(
        self, request: pb.AnnounceCheckpointRequest, context: Any
    ) -> pb.AnnounceCheckpointResponse:
        self._check_fence(request.name)
        if self.refused_announcements:
            self.refused_announcements -= 1
            raise errors.WrongState("the same content is being removed", retry_after=0)
        self.announced.append(request.checkpoint)
        return pb.AnnounceCheckpointResponse()

    async def FinishTrainingJob(self, request: pb.FinishTrainingJobRequest, context: Any) -> TrainingJob:
        self._check_fence(request.name)
        if self.lost_finishes:
            self.lost_finishes -= 1
            raise errors.Unavailable("the registry is away")
        if request.WhichOneof("outcome") in self.refused_outcomes:
            raise errors.MalformedContent("the graph is malformed")
        self.finished[request.name] = request
        return TrainingJob(name=request.name, state=_STATES[request.WhichOneof("outcome") or ""])

    async def ReportWorker(self, request: pb.ReportWorkerRequest, context: Any) -> pb.ReportWorkerResponse:
        if not self.knows_presence:
            raise errors.Unimplemented("not here")
        self.presences.append(request)
        return pb.ReportWorkerResponse(report_interval=_duration(self.report_interval_s))

    def _check_fence(self, name: str) -> None:
        if self.stale or name in self.finished:
            raise errors.StaleAttempt(f"{name} has another attempt")


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration(nanos=0)
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
