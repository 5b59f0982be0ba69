"""Notices callers that have gone while their prediction waits or is computed, and requests that come too slowly.

Envoy tells of an ended stream only when asked (`receive` then answers `http.disconnect`; while the stream lives, it
answers at once that there is no more body). Asking takes a trip between two threads, too dear for calls that take a
millisecond. So a call is asked for only when it has lasted a while, and then less and less often.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]

FIRST_LOOK_S = 0.01
"""A call that is answered within this time is not asked for."""
LAST_PAUSE_S = 0.5
"""The longest time between two questions: how long a prediction may go on for nobody."""


class Caller:
    """Somebody who waits for an answer."""

    __slots__ = ("_receive", "_task", "pause_s")

    def __init__(self, task: asyncio.Task[Any], receive: Receive) -> None:
        self._task: asyncio.Task[Any] | None = task
        self._receive = receive
        self.pause_s = FIRST_LOOK_S

    @property
    def waits(self) -> bool:
        """Whether the call is still being answered."""
        return self._task is not None

    def leave(self) -> None:
        """The call has been answered, or never will be."""
        self._task = None

    def ask(self) -> None:
        """Has the call cancelled if its caller turns out to have gone."""
        # Never cancel this future: Envoy's side sets its result when the stream ends, whoever still wants it.
        asyncio.ensure_future(self._receive()).add_done_callback(self._told)

    def _told(self, asked: asyncio.Future[dict[str, Any]]) -> None:
        if self._task is not None and asked.result()["type"] == "http.disconnect":
            self._task.cancel()


class ComingBody:
    """A request with a deadline whose body is not here yet."""

    __slots__ = ("_expires", "_give_up", "_timer", "is_here")

    def __init__(self, expires: float, give_up: Callable[[], None]) -> None:
        """`give_up` is called at `expires`, by the event loop's time, unless the body has come."""
        self._expires = expires
        self._give_up = give_up
        self._timer: asyncio.TimerHandle | None = None
        self.is_here = False

    def arrive(self) -> None:
        """The body has come, or never will."""
        self.is_here = True
        if self._timer is not None:
            self._timer.cancel()

    def set_timer(self) -> None:
        """It takes a while: sees to it that it does not take too long."""
        self._timer = asyncio.get_running_loop().call_at(self._expires, self._give_up)


class Attendance:
    """All callers that wait."""

    def __init__(self) -> None:
        self._coming: list[ComingBody] = []
        self._fresh: list[Caller] = []
        self._lasting: list[tuple[float, int, Caller]] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, caller: Caller) -> None:
        """Looks after the caller from now on, until it leaves."""
        self._fresh.append(caller)
        if self._timer is None:
            self._set_timer()

    def expect(self, body: ComingBody) -> None:
        """Looks after a body until it arrives. Most are here before a timer of their own would be worth its price."""
        self._coming.append(body)
        if self._timer is None:
            self._set_timer()

    def _set_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(FIRST_LOOK_S, self._look)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._lasting and self._lasting[0][0] <= now:
            _due, _number, caller = heapq.heappop(self._lasting)
            if caller.waits:
                caller.ask()
                caller.pause_s = min(2 * caller.pause_s, LAST_PAUSE_S)
                self._look_again(caller, now)
        for caller in self._fresh:
            if caller.waits:
                self._look_again(caller, now)
        self._fresh.clear()
        for body in self._coming:
            if not body.is_here:
                body.set_timer()
        self._coming.clear()
        self._timer = None
        if self._lasting:
            self._set_timer()

    def _look_again(self, caller: Caller, now: float) -> None:
        self._count += 1
        heapq.heappush(self._lasting, (now + caller.pause_s, self._count, caller))
