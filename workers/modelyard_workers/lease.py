"""Holds on to a claimed job: one thread that renews the lease, delivers updates and hears what the gateway wants."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from modelyard.core.errors import RemoteError
from modelyard.core.logs import get_logger
from modelyard.core.retries import Backoff
from modelyard.v1 import worker_service_pb2 as pb
from modelyard.v1.worker_service_pb2 import TrainingUpdate

from .gateway import CALL_S, Gateway, is_stale, may_pass
from .interruptions import Interruption, Interruptions
from .updates import Batch, UpdateBuffer

SHORTEST_INTERVAL_S = 0.5
"""Reports are at least so far apart, unless somebody waits for them."""

_DEFAULT_LEASE_S = 45.0
_DEFAULT_REPORT_INTERVAL_S = 10.0

_Directive = pb.ReportTrainingJobResponse
_WANTED = {
    _Directive.DIRECTIVE_CANCEL: (Interruption.CANCELLED, "somebody asked to cancel the job"),
    _Directive.DIRECTIVE_PAUSE: (Interruption.PAUSED, "somebody asked to pause the job"),
    _Directive.DIRECTIVE_PREEMPT: (Interruption.PREEMPTED, "the place was wanted for another job"),
    _Directive.DIRECTIVE_DEADLINE: (Interruption.DEADLINE, "the job ran longer than allowed"),
}

log = get_logger()


class Lease:
    """A claimed job, kept. Use it as a context manager around the whole attempt.

    What the gateway wants arrives as an interruption: CANCELLED, PAUSED, PREEMPTED or DEADLINE, or STALE when the
    attempt is no longer the current one. While the gateway is away the training goes on (the fence makes that safe) and
    updates are kept, until `out_of_contact_limit_s` seconds have passed without an answer.
    """

    def __init__(
        self,
        gateway: Gateway,
        claim: pb.ClaimTrainingJobResponse,
        interruptions: Interruptions,
        out_of_contact_limit_s: float,
    ) -> None:
        self._gateway = gateway
        self._name = claim.training_job.name
        self._attempt = claim.training_job.attempt
        self._interruptions = interruptions
        self._out_of_contact_limit_s = out_of_contact_limit_s
        lease_s = claim.lease_duration.ToTimedelta().total_seconds() or _DEFAULT_LEASE_S
        wanted_s = claim.report_interval.ToTimedelta().total_seconds() or _DEFAULT_REPORT_INTERVAL_S
        # Two reports may be lost before the lease is.
        self._interval_s = min(wanted_s, lease_s / 3)
        self._call_s = min(CALL_S, lease_s / 3)
        self._backoff = Backoff(first_s=0.25, limit_s=min(5.0, self._interval_s))
        self._buffer = UpdateBuffer()
        self._changed = threading.Condition()
        self._flushing = False
        self._closed = False
        self._last_contact = self._last_report = time.monotonic()
        self._next_try: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"lease {self._name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=self._call_s + 1)

    def add(self, update: TrainingUpdate) -> None:
        """Takes something to deliver; never blocks on the network."""
        self._buffer.add(update)
        with self._changed:
            self._changed.notify_all()

    def flush(self, wait_s: float) -> bool:
        """Delivers everything now; answers whether the gateway has it all. Ends early when the attempt is stale."""
        deadline = time.monotonic() + wait_s
        with self._changed:
            self._flushing = True
            self._changed.notify_all()
            while not self._buffer.empty() and self.delivers:
                left = deadline - time.monotonic()
                if left <= 0 or self._interruptions.current() is Interruption.STALE:
                    break
                self._changed.wait(min(left, SHORTEST_INTERVAL_S))
            self._flushing = False
        return self._buffer.empty()

    @property
    def delivers(self) -> bool:
        """Whether what was not delivered may still be; False after STALE, and if the thread has failed."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            while self._wait_until_due():
                self._report()
        except Exception as error:  # the attempt must hear of it, else it would train on without a lease
            log.exception("the lease thread failed")
            self._interruptions.add(Interruption.FAULT, f"the worker's lease thread failed: {type(error).__name__}")

    def _wait_until_due(self) -> bool:
        """Waits for the next report; answers False when there will be none."""
        with self._changed:
            while not self._over():
                wait_s = self._due() - time.monotonic()
                if wait_s <= 0:
                    return True
                self._changed.wait(wait_s)
        return False

    def _over(self) -> bool:
        return self._closed or self._interruptions.current() is Interruption.STALE

    def _due(self) -> float:
        """When the next report is to be made, on the monotonic clock."""
        if self._next_try is not None:
            return self._next_try
        if self._buffer.empty():
            return self._last_report + self._interval_s
        return self._last_report + (0 if self._flushing else SHORTEST_INTERVAL_S)

    def _report(self) -> None:
        batch = self._buffer.batch()
        request = pb.ReportTrainingJobRequest(
            name=self._name, attempt=self._attempt, first_update=batch.first, updates=batch.updates
        )
        self._last_report = time.monotonic()
        try:
            response = self._gateway.report(request, self._call_s)
        except RemoteError as error:
            self._failed(error, batch)
        else:
            self._answered(response)
        with self._changed:
            self._changed.notify_all()  # for `flush`

    def _answered(self, response: pb.ReportTrainingJobResponse) -> None:
        if self._next_try is not None:
            log.info("the gateway answers again", away_s=round(time.monotonic() - self._last_contact, 1))
        self._last_contact, self._next_try = time.monotonic(), None
        self._backoff.reset()
        self._buffer.confirm(response.updates_received)
        wanted = _WANTED.get(response.directive)
        if wanted is not None:
            self._interruptions.add(*wanted)

    def _failed(self, error: RemoteError, batch: Batch) -> None:
        if is_stale(error):
            self._interruptions.add(Interruption.STALE, str(error))
        elif may_pass(error):
            self._try_again_later(error)
        elif batch.updates:
            log.error("the gateway refused updates; they are dropped", error=str(error), updates=len(batch.updates))
            self._buffer.discard(batch)
        else:
            self._interruptions.add(Interruption.FAULT, f"the gateway refuses to renew the lease: {error}")

    def _try_again_later(self, error: RemoteError) -> None:
        now = time.monotonic()
        if self._next_try is None:
            log.warning("the gateway cannot be reached; the training goes on", error=str(error))
        self._next_try = now + self._backoff.next_s(error)
        away_s = now - self._last_contact
        if away_s > self._out_of_contact_limit_s:
            self._interruptions.add(
                Interruption.OUT_OF_CONTACT, f"the gateway could not be reached for {away_s:.0f} s: {error}"
            )
