"""Being told to stop: by SIGTERM, or by the death of the parent."""

from __future__ import annotations

import ctypes
import os
import signal
from types import FrameType

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


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


def stop_with_parent() -> None:
    """Has the kernel send SIGTERM when the thread that started this process ends (prctl(2), PR_SET_PDEATHSIG).

    A parent that died before this call is noticed at the first update: nobody reads the pipe.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
