"""What the gateway does by itself, again and again, beside answering calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from modelyard.core.logs import get_logger

_REST_AFTER_ERROR_S = 1.0
"""A database that is away is not asked five times a second, nor written about in the log so often."""

log = get_logger()


class Routine:
    """Work that is done when somebody wakes it, and otherwise every few seconds. An error in it is logged, and the
    work done again at the next time."""

    def __init__(
        self,
        name: str,
        interval_s: float,
        work: Callable[[], Awaitable[object]],
        *,
        on_error: Callable[[], None] = lambda: None,
    ) -> None:
        """`work` is repeated at once as long as it answers True."""
        self.name = name
        self._interval_s = interval_s
        self._work = work
        self._on_error = on_error
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Has the work done now."""
        self._woken.set()

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            self._woken.clear()
            more, rest_s = await self._once()
            if not more:
                await self._rest(rest_s)

    async def _once(self) -> tuple[bool, float]:
        """Whether there is more to do right now, and otherwise how many seconds to wait."""
        try:
            return await self._work() is True, self._interval_s
        except Exception:
            log.exception("routine failed", routine=self.name)
            self._on_error()
            return False, max(self._interval_s, _REST_AFTER_ERROR_S)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
