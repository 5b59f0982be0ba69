"""Being told to stop, by SIGTERM. (The worker has arranged that the trainer dies with it, see `launcher`.)"""

from __future__ import annotations

import signal
from types import FrameType


class Stopped(Exception):
    """Ends the trainer without a result."""


class StopRequest:
    """Whether somebody asked to stop. Asked at every step boundary, so that a step is never cut in half."""

    def __init__(self) -> None:
        self._requested = False

    @classmethod
    def by_signal(cls) -> StopRequest:
        """One that SIGTERM raises. SIGINT is left to the parent: Ctrl-C in a terminal reaches both."""
        request = cls()
        signal.signal(signal.SIGTERM, request._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return request

    def request(self) -> None:
        """Asks to stop."""
        self._requested = True

    def check(self) -> None:
        """Raises Stopped if somebody asked to stop."""
        if self._requested:
            raise Stopped

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.request()
