"""Tells the gateway that a pool process is there and what it does, so that people see it and plans can count on it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import grpc

from modelyard.core.errors import RemoteError
from modelyard.core.logs import get_logger
from modelyard.v1.training_service_pb2 import Worker
from modelyard.v1.worker_service_pb2 import ReportWorkerRequest

from .bell import Bell
from .gateway import Gateway

DEFAULT_INTERVAL_S = 10.0
RARELY_S = 600.0
"""How often a gateway is asked that does not know this call."""

_SLICE_S = 0.5  # how soon a shutdown is told
_GOODBYE_S = 2.0

log = get_logger()


class Presence:
    """One thread that reports now and then, and at once when something changes. Never disturbs a training.

    Start it in the pool process: gRPC must not have been started in a process that forks.
    """

    def __init__(
        self,
        gateway: Gateway,
        worker: str,
        node: str,
        queues: list[str],
        shutdown: Bell,
        find_hardware: Callable[[], str],
    ) -> None:
        """`find_hardware` says what this process computes on; called once, in the thread."""
        self._gateway = gateway
        self._request = ReportWorkerRequest(worker=worker, node=node, queues=queues, state=Worker.STATE_IDLE)
        self._shutdown = shutdown
        self._find_hardware = find_hardware
        self._changed = threading.Condition()
        self._dirty = True
        self._closed = False
        self._interval_s = DEFAULT_INTERVAL_S
        self._reached: bool | None = None
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Begins to report."""
        self._thread.start()

    def busy(self, job: str) -> None:
        """The process works on a job now."""
        self._set(Worker.STATE_BUSY, job)

    def idle(self) -> None:
        """The process waits for a job."""
        self._set(Worker.STATE_IDLE, "")

    def close(self) -> None:
        """Says good-bye, if the gateway listens."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=_GOODBYE_S + 1)

    def _set(self, state: Worker.State.ValueType, job: str) -> None:
        with self._changed:
            self._request.state, self._request.training_job = state, job
            self._dirty = True
            self._changed.notify_all()

    def _run(self) -> None:
        self._request.hardware = self._find_hardware()
        told_of_stop = False
        while True:
            stopping = self._await_turn(told_of_stop)
            told_of_stop = told_of_stop or stopping
            self._report(stopping=stopping)
            if self._closed:
                return

    def _await_turn(self, told_of_stop: bool) -> bool:
        """Returns when there is something to tell; whether the process is being stopped."""
        due = time.monotonic() + self._interval_s
        with self._changed:
            while not (self._dirty or self._closed or time.monotonic() >= due):
                if self._shutdown.rung() and not told_of_stop:
                    break
                self._changed.wait(min(_SLICE_S, max(0.0, due - time.monotonic())))
            self._dirty = False
            return self._closed or self._shutdown.rung()

    def _report(self, *, stopping: bool) -> None:
        request = ReportWorkerRequest()
        with self._changed:
            request.CopyFrom(self._request)
        if stopping:
            request.state = Worker.STATE_STOPPING
        try:
            answer = self._gateway.report_worker(request, _GOODBYE_S if stopping else None)
        except RemoteError as error:
            self._not_reached(error)
        except ValueError:  # the channel is closed: the process ends
            self._closed = True
        else:
            self._interval_s = answer.report_interval.ToTimedelta().total_seconds() or DEFAULT_INTERVAL_S
            self._reached = True

    def _not_reached(self, error: RemoteError) -> None:
        if error.code is grpc.StatusCode.UNIMPLEMENTED:
            self._interval_s = RARELY_S
            return
        if self._reached is not False:
            log.info("the gateway does not hear that this worker is there", error=str(error), pid=os.getpid())
        self._reached = False
        self._interval_s = DEFAULT_INTERVAL_S
