"""A TrainingService whose job does what a test says, when it says it; behind real gRPC, so that connections break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import structlog.testing

from modelyard.core.errors import NotFound
from modelyard.core.serving import Service
from modelyard.v1 import training_job_pb2 as job_pb
from modelyard.v1 import training_service_pb2 as pb
from modelyard.v1 import training_service_pb2_grpc

from .background import BackgroundServer, serve_in_background
from .identity import Identity

State = job_pb.TrainingJob.State
NAME = "trainingJobs/j1"


class ScriptedTraining(training_service_pb2_grpc.TrainingServiceServicer):
    """One job. Its lines are written from the test's thread with `Script`."""

    def __init__(self) -> None:
        self.job = job_pb.TrainingJob(name=NAME, state=State.STATE_QUEUED)
        self.job.spec.model = "models/houses"
        self.job.create_time.FromSeconds(1_700_000_000)
        self.job.update_time.FromSeconds(1_700_000_000)
        self.events: list[job_pb.TrainingJobEvent] = []
        self.points: list[pb.ListTrainingProgressResponse.Point] = []
        self.attempts: list[job_pb.TrainingAttempt] = []
        self.explanation = pb.TrainingJobExplanation()
        self.requests: list[Any] = []
        self.breaks_after = 0
        """Ends every stream with a reset after so many events; 0: never."""
        self.ends_after = 0
        """Ends every stream as if all were well after so many events; 0: never."""
        self.happened = asyncio.Event()

    async def GetTrainingJob(self, request: pb.GetTrainingJobRequest, _context: Any) -> job_pb.TrainingJob:
        if request.name != NAME:
            raise NotFound.resource(request.name)
        return self.job

    async def ListTrainingJobs(self, _request: Any, _context: Any) -> pb.ListTrainingJobsResponse:
        return pb.ListTrainingJobsResponse(training_jobs=[self.job])

    async def CreateTrainingJob(self, request: pb.CreateTrainingJobRequest, _context: Any) -> job_pb.TrainingJob:
        self.requests.append(request)
        return self.job

    async def ExplainTrainingJob(self, _request: Any, _context: Any) -> pb.TrainingJobExplanation:
        self.explanation.training_job.CopyFrom(self.job)
        return self.explanation

    async def ListTrainingAttempts(self, _request: Any, _context: Any) -> pb.ListTrainingAttemptsResponse:
        return pb.ListTrainingAttemptsResponse(training_attempts=self.attempts)

    async def ListTrainingProgress(
        self, request: pb.ListTrainingProgressRequest, _context: Any
    ) -> pb.ListTrainingProgressResponse:
        self.requests.append(request)
        return pb.ListTrainingProgressResponse(points=self.points[-request.max_points :])

    async def WatchTrainingJob(
        self, request: pb.WatchTrainingJobRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[job_pb.TrainingJobEvent]:
        self.requests.append(request)
        sent, after = 0, request.after_sequence
        while True:
            for event in self.events[after:]:
                yield event
                sent, after = sent + 1, event.sequence
                if sent == self.breaks_after:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "upstream connect error or disconnect/reset")
                if sent == self.ends_after:
                    return
            if after < len(self.events):
                continue  # something happened while we sent
            if request.history_only or (self.events and self.events[-1].state_change.state in _ENDS):
                return
            self.happened.clear()
            await self.happened.wait()


_ENDS = {State.STATE_SUCCEEDED, State.STATE_FAILED, State.STATE_CANCELLED}


class Script:
    """Makes things happen to the job, from the test's thread."""

    def __init__(self, server: BackgroundServer, training: ScriptedTraining) -> None:
        self.server = server
        self.training = training

    def happen(self, **payload: Any) -> None:
        """An event: `state_change=…`, `progress=…`, `log_line=…`, with the job's row following it."""
        self.server.call(self._happen(job_pb.TrainingJobEvent(**payload)))

    async def _happen(self, event: job_pb.TrainingJobEvent) -> None:
        training, job = self.training, self.training.job
        event.sequence = job.last_sequence = len(training.events) + 1
        event.time.FromSeconds(1_700_000_000 + event.sequence)
        event.attempt = event.attempt or job.attempt
        job.attempt = event.attempt
        if event.HasField("state_change"):
            job.state = event.state_change.state
            job.model_version = event.state_change.model_version
            job.failure_reason = event.state_change.failure_reason
            job.failure_message = event.state_change.message
        elif event.HasField("progress"):
            job.progress.CopyFrom(event.progress)
        training.events.append(event)
        training.happened.set()

    def enter(self, state: str, **more: Any) -> None:
        """The job enters a state."""
        self.happen(state_change={"state": f"STATE_{state}", **more})

    def log(self, text: str) -> None:
        """The trainer prints a line."""
        self.happen(log_line={"text": text})

    def train(self, epoch: int, of: int, **more: Any) -> None:
        """An epoch of ten steps is done."""
        figures = {
            "training_loss": 1 / epoch,
            "validation_loss": 1.5 / epoch,
            "best_epoch": epoch,
            "rows_per_second": 50.0,
        }
        self.happen(progress={"epoch": epoch, "max_epochs": of, "step": epoch * 10, **figures, **more})

    def watches(self) -> list[int]:
        """Where each stream began: the sequence number after which it was asked for."""
        return [one.after_sequence for one in self.training.requests if isinstance(one, pb.WatchTrainingJobRequest)]


@contextmanager
def scripted_training(identity: Identity, folder: Path) -> Iterator[Script]:
    """A served one with a job that is queued, at an address that stays when it is stopped and started."""
    training = ScriptedTraining()
    service = Service(
        lambda server: training_service_pb2_grpc.add_TrainingServiceServicer_to_server(training, server),
        ["modelyard.v1.TrainingService"],
    )
    address = f"unix:{folder}/training.sock"
    # Its log would mix with what a command prints that runs in the same process.
    with structlog.testing.capture_logs(), serve_in_background(service, identity, address) as server:
        script = Script(server, training)
        script.enter("QUEUED")
        yield script
