"""Watches over a running trainer: reads all that it says, stops it when there is a reason, says how it ended."""

from __future__ import annotations

import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from modelyard.core.logs import get_logger

from .interruptions import Interruption, Interruptions
from .log_limit import LogLimit
from .outputs import Deliver, EventStream, LogStream
from .trainer_process import TrainerProcess

POLL_S = 0.1
"""How soon an end or an interruption is noticed."""

_READ_BYTES = 256 * 1024
_DRAIN_S = 2.0
_SHUTDOWN_NOTICE_S = 2.0
_TERMINATED = (-signal.SIGTERM, 128 + signal.SIGTERM)

log = get_logger()


@dataclass(frozen=True, slots=True)
class Exit:
    """How a trainer ended."""

    code: int
    """Its exit code; minus the number of the signal that killed it."""
    interruption: Interruption | None
    """Why it was stopped; None if it ended by itself."""
    stderr_tail: str
    """The last lines that it printed on standard error."""


def supervise(process: TrainerProcess, deliver: Deliver, interruptions: Interruptions, grace_s: float) -> Exit:
    """Reads until the trainer ends. Interrupted, it gets SIGTERM, SIGKILL after `grace_s`; if STALE, SIGKILL at once.

    Nothing that the trainer (or what it started) does can hold this up: pipes are never waited for beyond its end.
    """
    limit = LogLimit()
    stderr = LogStream(deliver, limit)
    streams: dict[str, EventStream | LogStream] = {
        "events": EventStream(deliver),
        "stdout": LogStream(deliver, limit),
        "stderr": stderr,
    }
    stopping = _Stopping(process, grace_s)
    with selectors.DefaultSelector() as selector:
        for name, pipe in process.pipes.items():
            selector.register(pipe, selectors.EVENT_READ, streams[name].feed)
        while not process.exited():
            _read(selector, POLL_S)
            stopping.step(interruptions.current())
        code = process.reap()
        _drain(selector)
    for stream in streams.values():
        stream.finish()
    if stopping.reason is None and code in _TERMINATED and interruptions.await_shutdown(_SHUTDOWN_NOTICE_S):
        # Whoever stops the machine has signalled all processes, and the trainer's end was noticed first.
        return Exit(code, Interruption.SHUTDOWN, stderr.tail())
    return Exit(code, stopping.reason, stderr.tail())


def _read(selector: selectors.BaseSelector, wait_s: float) -> bool:
    """Reads once from every pipe that has something; answers whether any is still open."""
    if not selector.get_map():
        time.sleep(wait_s)  # the trainer has closed all its pipes and lives on
        return False
    for key, _events in selector.select(wait_s):
        pipe: BinaryIO = key.fileobj  # type: ignore[assignment]  # only pipes are registered
        feed: Callable[[bytes], None] = key.data
        data = pipe.read(_READ_BYTES)
        if data:
            feed(data)
        elif data is not None:
            selector.unregister(pipe)
    return bool(selector.get_map())


def _drain(selector: selectors.BaseSelector) -> None:
    """Reads what the dead have left. One who escaped the group may hold a pipe open: it is not waited for."""
    deadline = time.monotonic() + _DRAIN_S
    while time.monotonic() < deadline and any(selector.select(0)):
        _read(selector, 0)


class _Stopping:
    """Brings a trainer to an end, more firmly with time."""

    def __init__(self, process: TrainerProcess, grace_s: float) -> None:
        self._process = process
        self._grace_s = grace_s
        self._kill_at: float | None = None
        self.reason: Interruption | None = None

    def step(self, reason: Interruption | None) -> None:
        """Does what is due now; `reason` is the strongest known."""
        if reason is None:
            return
        now = time.monotonic()
        if self._kill_at is None:
            log.info("stopping the trainer", reason=reason.name, pid=self._process.pid)
            self._process.signal_group(signal.SIGTERM)
            self._kill_at = now + self._grace_s
        self.reason = reason
        if reason is Interruption.STALE or now >= self._kill_at:
            self._process.signal_group(signal.SIGKILL)
