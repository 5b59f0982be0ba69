"""Decides which models leave memory so that another one fits: those that nobody has used for the longest time.

A model that is parked is loaded again by the first request for it. Room is made only for a model that a request waits
for, or that is in service already and gets a new version; what is merely to be served, and does not fit, is parked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from modelyard.core.logs import get_logger

from .memory import MemoryBudget
from .table import ModelEntry, ServingTable

log = get_logger()


class Parking:
    """Makes room in memory. Used in the event loop."""

    def __init__(
        self, table: ServingTable, budget: MemoryBudget, park: Callable[[ModelEntry], None], *, turn_s: float
    ) -> None:
        """`park` takes a model out of memory; `turn_s`: how long one that was loaded stays whatever happens."""
        self._table = table
        self._budget = budget
        self._park = park
        self._turn_s = turn_s

    def make_room(self, model: str, excess: int) -> float:
        """See `MemoryBudget.make_room`."""
        entry = self._table.models.get(model)
        if entry is None or not (entry.demanded or entry.loaded):
            return math.inf
        missing = excess - self._budget.leaving_bytes
        if missing <= 0:
            return 0.0
        others = [other for other in self._table.models.values() if other is not entry and other.loaded]
        if sum(other.memory_bytes for other in others) < missing:
            return math.inf
        ripe = sorted((other for other in others if not self._rest_of_turn(other)), key=lambda other: other.last_used)
        if sum(other.memory_bytes for other in ripe) < missing:
            return min(self._rest_of_turn(other) for other in others if other not in ripe)
        self._park_first(ripe, missing, entry.name)
        return 0.0

    def _park_first(self, ripe: list[ModelEntry], missing: int, for_model: str) -> None:
        for other in ripe:
            if missing <= 0:
                return
            missing -= other.memory_bytes
            log.info("unloaded to save memory", model=other.name, for_model=for_model, idle_s=_idle_s(other))
            self._park(other)

    def _rest_of_turn(self, entry: ModelEntry) -> float:
        """Seconds for which it must stay."""
        return max(0.0, entry.loaded_at + self._turn_s - time.time())


def _idle_s(entry: ModelEntry) -> float:
    return round(time.time() - entry.last_used, 1)
