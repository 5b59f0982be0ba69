"""Callers that go are noticed, and only those that last are asked for."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from modelyard.inference.lane import attendance
from modelyard.inference.lane.attendance import Attendance, Caller
from support.waiting import eventually


class Stream:
    """A caller's stream, as Envoy tells of it."""

    def __init__(self) -> None:
        self.gone = False
        self.asked = 0

    def receive(self) -> asyncio.Future[dict[str, Any]]:
        self.asked += 1
        told: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        kind = "http.disconnect" if self.gone else "http.request"
        asyncio.get_running_loop().call_soon(told.set_result, {"type": kind, "body": b"", "more_body": False})
        return told


def call(attendance: Attendance, stream: Stream) -> tuple[Caller, asyncio.Task[None]]:
    """A call that would take for ever."""
    task = asyncio.create_task(asyncio.Event().wait())
    caller = Caller(task, stream.receive)
    attendance.wait(caller)
    return caller, task  # type: ignore[return-value]  # what the task answers does not matter


async def test_a_caller_that_goes_has_its_call_cancelled_and_nobody_elses() -> None:
    looking = Attendance()
    going, staying = Stream(), Stream()
    _, lost = call(looking, going)
    caller, kept = call(looking, staying)
    await eventually(lambda: _true(staying.asked > 0))
    assert not lost.done()
    going.gone = True
    with pytest.raises(asyncio.CancelledError):
        await lost
    assert not kept.done()
    caller.leave()
    kept.cancel()


async def test_a_call_that_is_answered_soon_is_never_asked_for() -> None:
    looking = Attendance()
    quick, lasting = Stream(), Stream()
    caller, task = call(looking, quick)
    caller.leave()
    other, slow = call(looking, lasting)
    await eventually(lambda: _true(lasting.asked > 1))
    assert quick.asked == 0
    for each in (task, slow):
        each.cancel()
    other.leave()


async def test_a_caller_that_has_been_answered_is_not_cancelled_by_what_comes_too_late() -> None:
    looking = Attendance()
    stream = Stream()
    caller, task = call(looking, stream)
    await eventually(lambda: _true(stream.asked > 0))
    stream.gone = True
    caller.ask()
    caller.leave()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.cancelling()
    task.cancel()


async def test_a_long_call_is_asked_for_less_and_less_often() -> None:
    looking = Attendance()
    stream = Stream()
    caller, task = call(looking, stream)
    began = asyncio.get_running_loop().time()
    await eventually(lambda: _true(caller.pause_s >= attendance.LAST_PAUSE_S))
    since = asyncio.get_running_loop().time() - began
    doublings = math.ceil(math.log2(attendance.LAST_PAUSE_S / attendance.FIRST_LOOK_S))
    assert stream.asked <= doublings + 1 + since / attendance.LAST_PAUSE_S
    caller.leave()
    task.cancel()


async def _true(value: bool) -> bool:
    return value
