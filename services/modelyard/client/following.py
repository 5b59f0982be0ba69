"""One job's events over any number of connections, without a gap and without a repeat."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import grpc

from modelyard.core.errors import RemoteError
from modelyard.core.retries import Backoff, Patience
from modelyard.v1 import training_job_pb2 as job_pb
from modelyard.v1 import training_service_pb2 as pb
from modelyard.v1.training_service_pb2_grpc import TrainingServiceStub

from .connection import is_break

State = job_pb.TrainingJob.State
TERMINAL_STATES = frozenset({State.STATE_SUCCEEDED, State.STATE_CANCELLED, State.STATE_FAILED})

DEFAULT_PATIENCE_S = 900.0
"""How long a watch tries to reach a cluster that does not answer: as long as a worker trains on without its gateway."""

_PROBE_S = 10.0
_LONGEST_PAUSE_S = 2.0
_STEADY_S = 10.0
"""A stream that has lasted so long was a good one, also if nothing happened on it."""


Answer = TypeVar("Answer")


class ContactListener(Protocol):
    """Hears whether the cluster can be reached; called in the thread that reads the events."""

    def __call__(self, error: RemoteError | None, /) -> None:
        """`error`: why not, at every try that fails. None: it answers again, and no event was missed."""


def _silent(_error: RemoteError | None, /) -> None:
    """For callers who do not ask."""


class Following:
    """Follows one job. Use `events` once."""

    def __init__(
        self,
        stub: TrainingServiceStub,
        request: pb.WatchTrainingJobRequest,
        *,
        until_paused: bool = False,
        patience_s: float = DEFAULT_PATIENCE_S,
        on_contact: ContactListener | None = None,
    ) -> None:
        """`request`: the first one; those after a break go on behind the newest event. `until_paused`: end also when
        the job is paused. `patience_s`: seconds without the cluster before its error is raised."""
        self._stub = stub
        self._name = request.name
        self._after = request.after_sequence
        self._history_only = request.history_only
        self._ended = False
        self._ends = TERMINAL_STATES | ({State.STATE_PAUSED} if until_paused else frozenset())
        self._notify = on_contact or _silent
        self._patience = Patience(patience_s, Backoff(limit_s=_LONGEST_PAUSE_S))

    def events(self) -> Iterator[job_pb.TrainingJobEvent]:
        """The events as they come; raises RemoteError."""
        while True:
            began = time.monotonic()
            try:
                # Asked first where a pause is an end: the stream of a paused job just stays silent.
                if State.STATE_PAUSED in self._ends and not self._history_only and self._is_over():
                    return
                yield from self._stream()
                if self._history_only or self._ended or self._is_over():
                    return
                error = RemoteError(grpc.StatusCode.UNAVAILABLE, "the stream ended before the job did")
            except grpc.RpcError as failure:
                error = RemoteError.from_rpc(failure)
                if not _may_pass(error):
                    raise error from failure
            if time.monotonic() - began > _STEADY_S:
                self._patience.progressed()
            self._reach(error)

    def _stream(self) -> Iterator[job_pb.TrainingJobEvent]:
        """One stream, until it ends or breaks, or the job is where we stop."""
        request = pb.WatchTrainingJobRequest(
            name=self._name, after_sequence=self._after, history_only=self._history_only
        )
        call = self._stub.WatchTrainingJob(request)
        try:
            for event in call:
                if event.sequence <= self._after:
                    continue
                self._after = event.sequence
                self._patience.progressed()
                yield event
                if self._stops_at(event.state_change.state):
                    return
        finally:
            call.cancel()  # without effect on a stream that has ended

    def _stops_at(self, state: State.ValueType) -> bool:
        """Whether nothing more is to come once the job has entered this state."""
        self._ended = self._ended or state in TERMINAL_STATES
        # An old pause is no end: the job may have gone on since.
        return self._ended or (state in self._ends and self._is_over())

    def _is_over(self) -> bool:
        """Whether the job has ended and we have all of its history."""
        job = self._stub.GetTrainingJob(pb.GetTrainingJobRequest(name=self._name), timeout=_PROBE_S)
        return job.state in self._ends and job.last_sequence <= self._after

    def _reach(self, error: RemoteError) -> None:
        """Waits until the cluster answers again; raises what it said last when the patience is at its end."""
        while True:
            self._notify(error)
            time.sleep(self._patience.wait_s(error))
            try:
                self._stub.GetTrainingJob(pb.GetTrainingJobRequest(name=self._name), timeout=_PROBE_S)
            except grpc.RpcError as failure:
                error = RemoteError.from_rpc(failure)
                if not _may_pass(error):
                    raise error from failure
            else:
                self._notify(None)
                return


def patiently(call: Callable[[], Answer], patience_s: float) -> Answer:
    """What a call that may be repeated answers, for up to `patience_s` seconds without the cluster; raises
    RemoteError."""
    patience = Patience(patience_s, Backoff(limit_s=_LONGEST_PAUSE_S))
    while True:
        try:
            return call()
        except grpc.RpcError as failure:
            error = RemoteError.from_rpc(failure)
            if not _may_pass(error):
                raise error from failure
            time.sleep(patience.wait_s(error))


def _may_pass(error: RemoteError) -> bool:
    """Whether waiting helps: the connection broke, the probe took too long, or the service said when to come back."""
    return is_break(error) or error.code is grpc.StatusCode.DEADLINE_EXCEEDED or error.retry_after is not None
