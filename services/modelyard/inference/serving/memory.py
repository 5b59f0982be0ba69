"""How much memory loaded versions may take together, and who has taken how much of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path

_PATIENCE_S = 30.0
"""How long a version waits for room that another one is about to make."""

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_MEMINFO = Path("/proc/meminfo")


def available_memory(limit_file: Path = _CGROUP_LIMIT, meminfo: Path = _MEMINFO) -> int:
    """Bytes of memory of the machine, or fewer if the process's container (cgroup v2) may use less."""
    lines = (line.split() for line in meminfo.read_text().splitlines())
    total = next(int(value) * 1024 for name, value, *_ in lines if name == "MemTotal:")
    try:
        limit = limit_file.read_text().strip()
    except OSError:
        return total
    return total if limit == "max" else min(total, int(limit))


class NoRoom(Exception):
    """A version does not fit beside what is loaded. Callers hear of it as the reason why the version is not served."""


class Reservation:
    """Memory that a version may take. `release` it when the version's memory has been given back."""

    def __init__(self, budget: MemoryBudget, size_bytes: int) -> None:
        self._budget = budget
        self.size_bytes = size_bytes
        self._leaving = False

    def leave(self) -> None:
        """Says that the version finishes what it has: `release` will follow soon."""
        self._leaving = True
        self._budget.leaving_bytes += self.size_bytes

    def release(self) -> None:
        """Gives the room to others. Once."""
        if self._leaving:
            self._budget.leaving_bytes -= self.size_bytes
        self._budget.give_back(self.size_bytes)


class MemoryBudget:
    """The account. Used in the event loop."""

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes`: 0 for no limit."""
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        """Of versions that are loaded, being loaded or being freed."""
        self.leaving_bytes = 0
        """The part of it that is on its way out."""
        self.make_room: Callable[[str, int], float] = lambda _model, _excess: math.inf
        """Called with a model that needs so many bytes more than are free. Begins to unload others; answers the seconds
        after which asking again may help: 0 when others have been unloaded, infinity if it never will."""
        self._released = asyncio.Event()

    async def reserve(self, model: str, size_bytes: int) -> Reservation:
        """Room for a version of this model, once there is some. Raises NoRoom."""
        until = asyncio.get_running_loop().time() + _PATIENCE_S
        while (excess := self._excess(size_bytes)) > 0:
            self._released.clear()
            wait_s = self.make_room(model, excess)
            left_s = until - asyncio.get_running_loop().time()
            if wait_s > left_s:
                raise NoRoom(
                    f"it takes {size_bytes} bytes of memory; of the {self.limit_bytes} bytes for all versions of this "
                    f"pod, {max(0, self.limit_bytes - self.used_bytes)} are free and no more can be freed now"
                )
            await self._wait(wait_s or left_s)
        self.used_bytes += size_bytes
        return Reservation(self, size_bytes)

    def give_back(self, size_bytes: int) -> None:
        """Ends a reservation."""
        self.used_bytes -= size_bytes
        self._released.set()

    async def _wait(self, most_s: float) -> None:
        try:
            async with asyncio.timeout(most_s):
                await self._released.wait()
        except TimeoutError:
            return

    def _excess(self, size_bytes: int) -> int:
        return self.used_bytes + size_bytes - self.limit_bytes if self.limit_bytes else 0


UNCOUNTED = Reservation(MemoryBudget(0), 0)
"""Of a version whose memory nobody counts."""
