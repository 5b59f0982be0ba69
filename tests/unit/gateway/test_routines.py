"""Background work: on time, when woken, and after errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from modelyard.gateway.routines import Routine
from support.waiting import eventually


@asynccontextmanager
async def _running(routine: Routine) -> AsyncIterator[None]:
    task = asyncio.create_task(routine.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class _Work:
    def __init__(self) -> None:
        self.done = 0
        self.answers: list[object] = []

    async def __call__(self) -> object:
        self.done += 1
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def reached(self, count: int) -> bool:
        return self.done >= count


async def test_work_is_done_at_once_and_again_after_the_interval() -> None:
    work = _Work()
    async with _running(Routine("test", 0.01, work)):
        await eventually(lambda: work.reached(3))


async def test_waking_does_the_work_without_waiting_for_the_interval() -> None:
    work = _Work()
    routine = Routine("test", 3600, work)
    async with _running(routine):
        await eventually(lambda: work.reached(1))
        routine.wake()
        await eventually(lambda: work.reached(2))


async def test_work_that_says_there_is_more_is_repeated_at_once() -> None:
    work = _Work()
    work.answers = [True, True, False]
    async with _running(Routine("test", 3600, work)):
        await eventually(lambda: work.reached(3))
        await asyncio.sleep(0)
    assert work.done == 3


async def test_an_error_is_told_and_the_work_goes_on() -> None:
    work, errors = _Work(), []
    work.answers = [RuntimeError("the database is away")]
    async with _running(Routine("test", 0.01, work, on_error=lambda: errors.append(1))):
        await eventually(lambda: work.reached(2))
    assert errors == [1]
