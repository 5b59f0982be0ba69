"""Training jobs: submit, look, steer, follow; the queues and the workers."""

from __future__ import annotations

import builtins
import uuid
from collections.abc import Iterable, Iterator, Mapping

from modelyard.v1 import training_job_pb2 as job_pb
from modelyard.v1 import training_service_pb2 as pb
from modelyard.v1.training_service_pb2_grpc import TrainingServiceStub
from modelyard.v1.training_spec_pb2 import TrainingSpec

from .connection import DEFAULT_TIMEOUT_S, Connection, pages, translated
from .durations import optional_duration
from .following import DEFAULT_PATIENCE_S, TERMINAL_STATES, ContactListener, Following, State, patiently

__all__ = ["DEFAULT_PATIENCE_S", "TERMINAL_STATES", "State", "TrainingClient"]


class TrainingClient:
    """`client.training`. Jobs are named `trainingJobs/{id}`. Every method raises RemoteError for what the service
    refuses: NOT_FOUND for a job that is not there or another tenant's, PERMISSION_DENIED without the right."""

    def __init__(self, connection: Connection) -> None:
        self._stub = TrainingServiceStub(connection.channel)

    def submit(
        self,
        spec: TrainingSpec,
        *,
        display_name: str = "",
        labels: Mapping[str, str] | None = None,
        queue: str = "",
        priority: int = 0,
        max_queue_s: float | None = None,
        max_run_s: float | None = None,
        max_retries: int = 0,
        request_id: str | None = None,
        validate_only: bool = False,
    ) -> job_pb.TrainingJob:
        """Submits a job and answers it as it stands in the queue.

        `queue`: the class of workers, default the cluster's first. `priority`: -100 to 100 among the tenant's own jobs,
        higher first. `max_queue_s`, `max_run_s`: seconds it may wait in one go and hold workers in sum, 1 to
        31,622,400; default no limit. `max_retries`: how often a failure of its own is tried again, 0 to 10.

        `request_id` makes the call repeatable; by default a new one, which protects this one call's own retries.
        `validate_only`: check everything, submit nothing.

        Raises RemoteError: INVALID_ARGUMENT with `violations` for wrong fields, NOT_FOUND for the dataset,
        RESOURCE_EXHAUSTED if the tenant has as many jobs waiting as it may.
        """
        scheduling = job_pb.Scheduling(
            queue=queue,
            priority=priority,
            max_queue_time=optional_duration(max_queue_s),
            max_run_time=optional_duration(max_run_s),
            max_retries=max_retries,
        )
        job = job_pb.TrainingJob(spec=spec, display_name=display_name, labels=labels)
        if scheduling.ByteSize():
            job.scheduling.CopyFrom(scheduling)
        request = pb.CreateTrainingJobRequest(
            training_job=job, request_id=request_id or uuid.uuid4().hex, validate_only=validate_only
        )
        with translated():
            return self._stub.CreateTrainingJob(request, timeout=DEFAULT_TIMEOUT_S)

    def get(self, name: str, *, patience_s: float = 0.0) -> job_pb.TrainingJob:
        """One job by `trainingJobs/{id}`. `patience_s`: seconds to go on trying while the cluster does not answer."""
        request = pb.GetTrainingJobRequest(name=name)
        return patiently(lambda: self._stub.GetTrainingJob(request, timeout=DEFAULT_TIMEOUT_S), patience_s)

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
        """Asks a job to stop; answers it, CANCELLED or CANCELLING. FAILED_PRECONDITION if it has ended."""
        request = pb.CancelTrainingJobRequest(name=name, request_id=uuid.uuid4().hex)
        with translated():
            return self._stub.CancelTrainingJob(request, timeout=DEFAULT_TIMEOUT_S)

    def pause(self, name: str) -> job_pb.TrainingJob:
        """Stops a job so that it can go on later; answers it, PAUSED or, until its worker has saved a checkpoint and
        stopped, PAUSING. FAILED_PRECONDITION if it has ended, is being cancelled or published."""
        request = pb.PauseTrainingJobRequest(name=name, request_id=uuid.uuid4().hex)
        with translated():
            return self._stub.PauseTrainingJob(request, timeout=DEFAULT_TIMEOUT_S)

    def resume(self, name: str) -> job_pb.TrainingJob:
        """Puts a paused job back into its queue; it goes on from its newest checkpoint. Answers the job; a queued or
        running one as it is. FAILED_PRECONDITION in other states."""
        request = pb.ResumeTrainingJobRequest(name=name, request_id=uuid.uuid4().hex)
        with translated():
            return self._stub.ResumeTrainingJob(request, timeout=DEFAULT_TIMEOUT_S)

    def preempt(self, name: str) -> job_pb.TrainingJob:
        """Takes a job's worker away: it saves a checkpoint and the job goes back into its queue, behind what waits
        there. FAILED_PRECONDITION if no worker holds it."""
        request = pb.PreemptTrainingJobRequest(name=name, request_id=uuid.uuid4().hex)
        with translated():
            return self._stub.PreemptTrainingJob(request, timeout=DEFAULT_TIMEOUT_S)

    def explain(self, name: str) -> pb.TrainingJobExplanation:
        """Why a job is where it is: what it waits for, how many jobs are ahead of it, when it will probably start."""
        with translated():
            return self._stub.ExplainTrainingJob(pb.ExplainTrainingJobRequest(name=name), timeout=DEFAULT_TIMEOUT_S)

    def attempts(self, name: str, *, limit: int | None = None) -> Iterator[job_pb.TrainingAttempt]:
        """The job's attempts, newest first, fetched page by page."""

        def fetch(token: str) -> tuple[list[job_pb.TrainingAttempt], str]:
            request = pb.ListTrainingAttemptsRequest(parent=name, page_token=token)
            with translated():
                page = self._stub.ListTrainingAttempts(request, timeout=DEFAULT_TIMEOUT_S)
            return list(page.training_attempts), page.next_page_token

        return pages(fetch, limit)

    def progress(self, name: str, *, max_points: int = 500) -> builtins.list[pb.ListTrainingProgressResponse.Point]:
        """The job's progress over its whole life, oldest first, thinned evenly to at most `max_points` (1 to 10,000);
        the newest is always among them. Losses are in the unit of the spec's loss, speeds in rows per second."""
        request = pb.ListTrainingProgressRequest(parent=name, max_points=max_points)
        with translated():
            return list(self._stub.ListTrainingProgress(request, timeout=DEFAULT_TIMEOUT_S).points)

    def queues(self) -> builtins.list[pb.Queue]:
        """The queues with what waits and runs in each, all tenants counted; the first one is the default."""
        with translated():
            return list(self._stub.ListQueues(pb.ListQueuesRequest(), timeout=DEFAULT_TIMEOUT_S).queues)

    def workers(self) -> builtins.list[pb.Worker]:
        """The workers that reported lately, by name."""
        with translated():
            return list(self._stub.ListWorkers(pb.ListWorkersRequest(), timeout=DEFAULT_TIMEOUT_S).workers)

    def watch(
        self,
        name: str,
        *,
        after_sequence: int = 0,
        history_only: bool = False,
        until_paused: bool = False,
        patience_s: float = DEFAULT_PATIENCE_S,
        on_contact: ContactListener | None = None,
    ) -> Iterator[job_pb.TrainingJobEvent]:
        """The job's events from the first (or after one), then as they happen, until it ends.

        `after_sequence`: with a job's `last_sequence`, only what happens next. `history_only`: the events that are
        recorded already, without waiting for more. `until_paused`: end also when the job is paused.

        A broken connection is taken up again where it broke, without gap or repeat, as often as it breaks. Raises
        RemoteError when the cluster has not answered for `patience_s` seconds, or when it refuses. `on_contact` hears
        the error of every try that fails, and None when the cluster answers again.
        """
        request = pb.WatchTrainingJobRequest(name=name, after_sequence=after_sequence, history_only=history_only)
        following = Following(
            self._stub, request, until_paused=until_paused, patience_s=patience_s, on_contact=on_contact
        )
        return following.events()

    def logs(self, name: str, *, follow: bool = False, attempt: int | None = None) -> Iterator[job_pb.TrainingJobEvent]:
        """The lines that the trainer printed, as events (with time and attempt), oldest first.

        They outlive the worker. `follow`: go on until the job ends. `attempt`: of this attempt only, from 1.
        """
        for event in self.watch(name, history_only=not follow):
            if event.WhichOneof("payload") == "log_line" and attempt in {None, event.attempt}:
                yield event

    def wait(self, name: str) -> job_pb.TrainingJob:
        """Waits for the job's end, through pauses too, and answers it, however it ended."""
        now = self.get(name, patience_s=DEFAULT_PATIENCE_S)
        for _event in self.watch(name, after_sequence=now.last_sequence):
            pass
        return self.get(name, patience_s=DEFAULT_PATIENCE_S)
