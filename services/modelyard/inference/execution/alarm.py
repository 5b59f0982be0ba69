"""One timer for the deadlines of many requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context


class DeadlineAlarm:
    """Calls `ring` at or soon after the earliest time asked for, and is then forgotten: `ring` sets it anew.

    A timer for each request would cost more than a small request itself does.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._at = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def set(self, at: float) -> None:
        """Rings at this time of the event loop, unless it rings earlier anyway."""
        if at >= self._at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        # Nobody's context: it rings for all, not for the call that set it.
        self._timer = self._loop.call_at(at, self._fire, context=Context())

    def cancel(self) -> None:
        """Forgets the time asked for."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._at = None, float("inf")

    def _fire(self) -> None:
        self._timer, self._at = None, float("inf")
        self._ring()
