"""The people outside: they submit jobs, watch every one from its first event to its last, and change their minds."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Self, TypeVar

import grpc

from modelyard import Client, RemoteError
from modelyard.core.retries import is_transient
from modelyard.v1.training_job_pb2 import TrainingAttempt, TrainingJob, TrainingJobEvent

from .stage import Stage
from .workload import TENANTS, PlannedJob, write_table

State = TrainingJob.State
TERMINAL = frozenset({State.STATE_SUCCEEDED, State.STATE_CANCELLED, State.STATE_FAILED})
_PAUSE_S = 0.25

T = TypeVar("T")


@dataclass
class SubmittedJob:
    """A job that the gateway has accepted, and what its watcher saw."""

    plan: PlannedJob
    name: str
    events: list[TrainingJobEvent] = field(default_factory=list)
    """As the watcher got them, over all breaks."""
    breaks: int = 0
    """How often the watcher had to call again."""
    cancel_asked: bool = False
    """Somebody tried to cancel it."""
    cancel_accepted: bool = False
    """The gateway said that it will be cancelled."""
    pause_asked: bool = False
    """Somebody tried to pause it: it may have to be resumed."""
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def id(self) -> str:
        """Without the collection."""
        return self.name.rpartition("/")[2]


class Callers:
    """All tenants' people. Use it as a context manager: at the end watchers stop."""

    def __init__(self, stage: Stage) -> None:
        self._stack = ExitStack()
        self.clients = {tenant: self._stack.enter_context(stage.client(tenant, "developer")) for tenant in TENANTS}
        self.jobs: list[SubmittedJob] = []
        self._closing = threading.Event()
        self._watchers: list[threading.Thread] = []
        table = write_table(stage.folder / "table.csv")
        for tenant, client in self.clients.items():
            client.datasets.upload(table, dataset=f"table-{tenant}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._closing.set()
        if self.unfinished():
            return  # a run that was broken off: no channel is closed under a watcher that is at its calls
        for watcher in self._watchers:
            watcher.join()
        self._stack.close()

    def submit(self, plan: PlannedJob, chance: random.Random) -> SubmittedJob | None:
        """Submits until it is accepted, one time in four twice; None if the run ended before."""
        client = self.clients[plan.tenant]
        names = set()
        for _ in range(2 if chance.random() < 0.25 else 1):
            answer = self.patiently(lambda: client.training.submit(plan.spec(), request_id=plan.request_id))
            if answer is None:
                return None
            names.add(answer.name)
        assert len(names) == 1, f"the same submission made several jobs: {names}"
        job = SubmittedJob(plan, names.pop())
        self.jobs.append(job)
        watcher = threading.Thread(target=self._watch, args=(client, job), name=f"watch {job.id}", daemon=True)
        self._watchers.append(watcher)
        watcher.start()
        return job

    def patiently(self, call: Callable[[], T]) -> T | None:
        """Repeats a call until the cluster answers; None if the run ends first. Raises what will not change."""
        while not self._closing.is_set():
            try:
                return call()
            except RemoteError as error:
                if not is_transient(error):
                    raise
                self._closing.wait(_PAUSE_S)
        return None

    def unfinished(self) -> list[SubmittedJob]:
        """Jobs whose watcher has not seen the end."""
        return [job for job in self.jobs if not job.ended.is_set()]

    def cancel(self, job: SubmittedJob) -> str:
        """Asks once to cancel; what came of it, in words."""
        job.cancel_asked = True
        answer = _asked(lambda: self.clients[job.plan.tenant].training.cancel(job.name))
        job.cancel_accepted |= answer.startswith("STATE_")
        return answer

    def pause(self, job: SubmittedJob) -> str:
        """Asks once to pause; what came of it, in words."""
        job.pause_asked = True
        return _asked(lambda: self.clients[job.plan.tenant].training.pause(job.name))

    def resume(self, job: SubmittedJob) -> str:
        """Asks once to go on with a paused job; what came of it, in words."""
        return _asked(lambda: self.clients[job.plan.tenant].training.resume(job.name))

    def preempt(self, job: SubmittedJob) -> str:
        """Asks once to take the job's worker away; what came of it, in words."""
        return _asked(lambda: self.clients[job.plan.tenant].training.preempt(job.name))

    def attempts(self, job: SubmittedJob) -> list[TrainingAttempt]:
        """The job's attempts, newest first."""
        return list(self.clients[job.plan.tenant].training.attempts(job.name))

    def finish_all(self, timeout_s: float) -> bool:
        """Whether all jobs end in time; those that are paused are resumed."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if wait_for(self.jobs, 1.0):
                return True
            for job in self.unfinished():
                if job.pause_asked:
                    self.resume(job)
        return False

    def _watch(self, client: Client, job: SubmittedJob) -> None:
        """As a caller would: through the client, and again from the last event whenever that gives up."""
        while not self._closing.is_set():
            try:
                after = job.events[-1].sequence if job.events else 0
                for event in client.training.watch(job.name, after_sequence=after):
                    job.events.append(event)
                if job.events and is_last(job.events[-1]):
                    break
            except (RemoteError, grpc.RpcError) as error:
                if isinstance(error, RemoteError) and not is_transient(error):
                    job.events.append(TrainingJobEvent())  # an impossible event: the stream's check will show it
                    break
            job.breaks += 1
            self._closing.wait(_PAUSE_S)
        job.ended.set()


def _asked(call: Callable[[], TrainingJob]) -> str:
    """The state that was answered, or why there is no answer."""
    try:
        return State.Name(call().state)
    except RemoteError as error:
        return error.reason or error.code.name


def is_last(event: TrainingJobEvent) -> bool:
    """Whether nothing may come after it."""
    return event.HasField("state_change") and event.state_change.state in TERMINAL


def wait_for(jobs: Iterable[SubmittedJob], timeout_s: float) -> bool:
    """Whether all of them ended in time."""
    deadline = time.monotonic() + timeout_s
    return all(job.ended.wait(max(0.0, deadline - time.monotonic())) for job in jobs)
