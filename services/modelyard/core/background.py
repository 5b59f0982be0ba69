"""Work that runs beside a server for as long as it lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from .logs import get_logger

log = get_logger()


@asynccontextmanager
async def running(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs the work for the length of an `async with`, and cancels it at the end.

    Such work handles its errors itself. If one gets out all the same, it is logged: the rest goes on without that work.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    for task in tasks:
        task.add_done_callback(_notice)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _notice(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("background work has failed", work=repr(task.get_coro()), exc_info=error)
