"""Why an attempt stops before its trainer is done."""

from __future__ import annotations

import threading
from enum import IntEnum

from .bell import Bell


class Interruption(IntEnum):
    """A reason to stop. When several come together the greatest decides what happens."""

    SHUTDOWN = 1
    """This worker is being stopped: the job is given back and another worker takes it."""
    OUT_OF_CONTACT = 2
    """The gateway could not be reached for too long."""
    CANCELLED = 3
    """Somebody asked to cancel the job."""
    FAULT = 4
    """The worker itself is at its wits' end; `Interruptions.message` says why."""
    STALE = 5
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
        """Whether it makes no sense to wait for a gateway that does not answer; then the lease runs out."""
        return self._strongest in {Interruption.STALE, Interruption.OUT_OF_CONTACT} or self._bell.rung()

    def await_shutdown(self, seconds: float) -> bool:
        """Whether the worker is told to stop within so many seconds."""
        return self._bell.rung(seconds)
