"""What the gateway does by itself, again and again, beside answering calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from modelyard.core.logs import get_logger

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
            if await self._once() is not True:
                await self._rest()

    async def _once(self) -> object:
        try:
            return await self._work()
        except Exception:
            log.exception("routine failed", routine=self.name)
            self._on_error()
            return False

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._interval_s):
                await self._woken.wait()
        except TimeoutError:
            return
