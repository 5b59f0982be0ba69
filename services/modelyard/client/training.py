"""Training jobs: submit, look, cancel, follow."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping

import grpc

from modelyard.core.errors import RemoteError
from modelyard.v1 import training_job_pb2 as job_pb
from modelyard.v1 import training_service_pb2 as pb
from modelyard.v1.training_service_pb2_grpc import TrainingServiceStub
from modelyard.v1.training_spec_pb2 import TrainingSpec

from .connection import DEFAULT_TIMEOUT_S, Connection, is_break, pages, translated

State = job_pb.TrainingJob.State
TERMINAL_STATES = frozenset({State.STATE_SUCCEEDED, State.STATE_CANCELLED, State.STATE_FAILED})
_RECONNECT_PAUSE_S = 0.5
_RECONNECT_FOR_S = 60.0


class TrainingClient:
    """`client.training`."""

    def __init__(self, connection: Connection) -> None:
        self._stub = TrainingServiceStub(connection.channel)

    def submit(
        self,
        spec: TrainingSpec,
        *,
        display_name: str = "",
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        validate_only: bool = False,
    ) -> job_pb.TrainingJob:
        """Submits a job and answers it as it stands in the queue.

        `request_id` makes the call repeatable; by default a new one, which protects this one call's own retries.
        """
        job = job_pb.TrainingJob(spec=spec, display_name=display_name, labels=labels)
        request = pb.CreateTrainingJobRequest(
            training_job=job, request_id=request_id or uuid.uuid4().hex, validate_only=validate_only
        )
        with translated():
            return self._stub.CreateTrainingJob(request, timeout=DEFAULT_TIMEOUT_S)

    def get(self, name: str) -> job_pb.TrainingJob:
        """One job by `trainingJobs/{id}`."""
        with translated():
            return self._stub.GetTrainingJob(pb.GetTrainingJobRequest(name=name), timeout=DEFAULT_TIMEOUT_S)

    def list(
        self, *, states: Iterable[State.ValueType] = (), model: str = "", limit: int | None = None
    ) -> Iterator[job_pb.TrainingJob]:
        """Jobs, newest first, fetched page by page."""
        wanted = list(states)

        def fetch(token: str) -> tuple[list[job_pb.TrainingJob], str]:
            request = pb.ListTrainingJobsRequest(page_token=token, states=wanted, model=model)
            with translated():
                page = self._stub.ListTrainingJobs(request, timeout=DEFAULT_TIMEOUT_S)
            return list(page.training_jobs), page.next_page_token

        return pages(fetch, limit)

    def cancel(self, name: str) -> job_pb.TrainingJob:
        """Asks a job to stop; answers it, CANCELLED or CANCELLING."""
        request = pb.CancelTrainingJobRequest(name=name, request_id=uuid.uuid4().hex)
        with translated():
            return self._stub.CancelTrainingJob(request, timeout=DEFAULT_TIMEOUT_S)

    def watch(
        self, name: str, *, after_sequence: int = 0, history_only: bool = False
    ) -> Iterator[job_pb.TrainingJobEvent]:
        """The job's events from the first (or after one), then as they happen, until it ends.

        `history_only`: the events that are recorded already, without waiting for more.

        A broken connection is taken up again where it broke, for up to a minute, without gap or repeat.
        """
        broken_since: float | None = None
        while True:
            try:
                request = pb.WatchTrainingJobRequest(
                    name=name, after_sequence=after_sequence, history_only=history_only
                )
                for event in self._stub.WatchTrainingJob(request):
                    broken_since, after_sequence = None, event.sequence
                    yield event
                return
            except grpc.RpcError as failure:
                error = RemoteError.from_rpc(failure)
                broken_since = broken_since or time.monotonic()
                hopeless = time.monotonic() - broken_since > _RECONNECT_FOR_S
                if hopeless or not is_break(error):
                    raise error from failure
                time.sleep(_RECONNECT_PAUSE_S)

    def logs(self, name: str, *, follow: bool = False, attempt: int | None = None) -> Iterator[job_pb.TrainingJobEvent]:
        """The lines that the trainer printed, as events (with time and attempt), oldest first.

        They outlive the worker. `follow`: go on until the job ends. `attempt`: of this attempt only, from 1.
        """
        for event in self.watch(name, history_only=not follow):
            if event.WhichOneof("payload") == "log_line" and attempt in {None, event.attempt}:
                yield event

    def wait(self, name: str) -> job_pb.TrainingJob:
        """Waits for the job's end and answers it, however it ended."""
        for _event in self.watch(name):
            pass
        return self.get(name)
