"""Why an attempt stops before its trainer is done."""

from __future__ import annotations

import threading
import time
from enum import IntEnum

from .bell import Bell

GOODBYE_S = 10.0
"""How long a worker that is being stopped tries to tell the gateway."""

_LAST_WAIT_S = 0.5


class Interruption(IntEnum):
    """A reason to stop. When several come together the greatest decides what happens."""

    SHUTDOWN = 1
    """This worker is being stopped: the job is given back and another worker takes it."""
    OUT_OF_CONTACT = 2
    """The gateway could not be reached for too long."""
    PREEMPTED = 3
    """Somebody wants the place for another job."""
    PAUSED = 4
    """Somebody asked to pause the job."""
    DEADLINE = 5
    """The job's time to run is over."""
    CANCELLED = 6
    """Somebody asked to cancel the job."""
    FAULT = 7
    """The worker itself is at its wits' end; `Interruptions.message` says why."""
    STALE = 8
    """The fence: another attempt has the job. Nothing may be sent any more."""


class Interrupted(Exception):
    """Ends whatever the attempt was doing."""

    def __init__(self, reason: Interruption) -> None:
        super().__init__(reason.name)
        self.reason = reason


class Interruptions:
    """Collects reasons to stop, from any thread; whoever works asks it often."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._lock = threading.Lock()
        self._strongest: Interruption | None = None
        self._goodbye_until: float | None = None
        self.message = ""
        """What lies behind the strongest reason, in words."""

    def add(self, reason: Interruption, message: str = "") -> None:
        """Notes a reason to stop; a weaker one than is known changes nothing."""
        with self._lock:
            if self._strongest is None or reason > self._strongest:
                self._strongest, self.message = reason, message

    def current(self) -> Interruption | None:
        """The strongest reason to stop, None to go on."""
        if self._strongest is None and self._bell.rung():
            return Interruption.SHUTDOWN
        return self._strongest

    def check(self) -> None:
        """Raises Interrupted if there is a reason to stop."""
        reason = self.current()
        if reason is not None:
            raise Interrupted(reason)

    def hopeless(self) -> bool:
        """Whether it makes no sense to wait for a gateway that does not answer; then the lease runs out.

        A worker that is being stopped waits for a few seconds from when this is first asked.
        """
        if self._strongest in {Interruption.STALE, Interruption.OUT_OF_CONTACT}:
            return True
        if not self._bell.rung():
            return False
        now = time.monotonic()
        self._goodbye_until = self._goodbye_until or now + GOODBYE_S
        return now >= self._goodbye_until

    def await_shutdown(self, seconds: float) -> bool:
        """Whether the worker is told to stop within so many seconds."""
        return self._bell.rung(seconds)

    def pause(self, seconds: float) -> None:
        """Waits before the next try; shorter if the worker is being stopped."""
        if self._bell.rung():
            time.sleep(min(seconds, _LAST_WAIT_S))
        else:
            self._bell.rung(seconds)
