"""Work beside a server: runs as long as it is wanted, and does not die in silence."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from modelyard.core.background import running


async def test_work_runs_until_the_end_and_may_clean_up() -> None:
    told: list[str] = []
    begun = asyncio.Event()

    async def work() -> None:
        told.append("begun")
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            told.append("ended")

    async with running(work()):
        await begun.wait()
    assert told == ["begun", "ended"]


async def test_work_that_fails_is_logged_and_the_rest_goes_on() -> None:
    failed, going_on = asyncio.Event(), asyncio.Event()

    async def failing() -> None:
        failed.set()
        raise RuntimeError("broken")

    async def other() -> None:
        await failed.wait()
        going_on.set()
        await asyncio.Event().wait()

    with capture_logs() as lines:
        async with running(failing(), other()):
            await going_on.wait()
    assert [(line["event"], str(line["exc_info"])) for line in lines] == [("background work has failed", "broken")]


async def test_what_the_block_raises_comes_out_after_the_work_has_ended() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(ValueError, match="of the block"):
        async with running(work()):
            await asyncio.sleep(0)
            raise ValueError("of the block")
    assert ended.is_set()
