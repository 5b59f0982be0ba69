"""Foresees when a job's turn will come, by playing the queue forward under the rule of `turns`.

Only arithmetic. What is assumed: nobody submits, cancels or changes anything, the workers of now stay, and every job
that starts takes as long as the jobs of this queue took lately.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .turns import Candidate, next_queue_tag, next_tag, whose_turn

MAX_STARTS = 20_000
"""So many starts are played at most."""


@dataclass(slots=True)
class Line:
    """The jobs of one tenant that wait in the queue."""

    candidate: Candidate
    """`running` and `tag` are played on."""
    waiting: int
    room: int | None
    """How many more jobs the tenant may run now; None: no limit."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A queue at the beginning."""

    lines: Sequence[Line]
    tag: float
    """The queue's, see `turns`."""
    ends: Sequence[tuple[float, str]]
    """Of each running job, in how many seconds it will probably end, and its tenant."""
    free: int
    """Jobs that may start at once: idle workers, but not more than the queue has room for."""
    duration_s: float
    """How long a job that starts will take; infinite if nobody can tell, and then the order is all that is foreseen."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be expected."""

    ahead: int
    """Jobs that start before."""
    tenant_ahead: int
    """How many of these are its own tenant's."""
    starts_in_s: float | None
    """None if it never starts as things are, or not within MAX_STARTS."""


def foresee(scene: Scene, tenant: str, place: int) -> Outlook:
    """Plays until the job starts before which `place` other jobs of this tenant go."""
    game = _Game(scene)
    while game.ahead < MAX_STARTS:
        started = game.start()
        if started is None:
            if not game.wait():
                break
        elif started == tenant and game.started[tenant] == place + 1:
            return Outlook(game.ahead, place, game.now)
        else:
            game.ahead += 1
    return Outlook(game.ahead, min(place, game.started[tenant]), None)


class _Game:
    def __init__(self, scene: Scene) -> None:
        self.now = 0.0
        self.ahead = 0
        self.started: Counter[str] = Counter()
        self._lines = {line.candidate.tenant: line for line in scene.lines}
        self._tag = scene.tag
        self._ends = list(scene.ends)
        heapq.heapify(self._ends)
        self._free = scene.free
        self._duration_s = scene.duration_s

    def start(self) -> str | None:
        """Starts the next job; its tenant, or None if none may start now."""
        candidates = [line.candidate for line in self._lines.values() if line.waiting and line.room != 0]
        chosen = whose_turn(candidates, self._tag) if self._free > 0 else None
        if chosen is None:
            return None
        chosen.tag, self._tag = next_tag(chosen, self._tag), next_queue_tag(candidates, self._tag)
        chosen.running += 1
        self._lines[chosen.tenant].waiting -= 1
        self._make_room(chosen.tenant, -1)
        self._free -= 1
        self.started[chosen.tenant] += 1
        heapq.heappush(self._ends, (self.now + self._duration_s, chosen.tenant))
        return chosen.tenant

    def wait(self) -> bool:
        """Goes on to the next end of a job; whether there is one."""
        if not self._ends:
            return False
        self.now, tenant = heapq.heappop(self._ends)
        self._free += 1
        if tenant in self._lines:
            self._lines[tenant].candidate.running -= 1
            self._make_room(tenant, 1)
        return True

    def _make_room(self, tenant: str, change: int) -> None:
        line = self._lines[tenant]
        if line.room is not None:
            line.room += change
