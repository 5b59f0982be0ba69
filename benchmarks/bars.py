"""Targets, and whether measurements reach them.

Everything is compared within a round, where the two stood side by side, and then the median over the rounds is taken:
what slows the whole machine down for a while slows both.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class Figure(Enum):
    """What is compared in a scenario; the value is the field of a measurement."""

    RATE = "rate"
    P50_US = "p50_us"


Rounds = Mapping[str, Sequence[float | None]]
"""Per entry one figure per round; None where measuring failed."""


@dataclass(frozen=True)
class Verdict:
    """What became of a bar."""

    reached: float | None
    """None if there are no rounds in which both sides were measured."""
    against: str
    """The entry it was compared with; empty for an absolute bar."""
    passed: bool | None
    """None if nothing was reached because nothing could be compared."""


@dataclass(frozen=True)
class Bar:
    """A target: `entry`'s figure divided by, less, or without those of the best of `others`."""

    entry: str
    others: tuple[str, ...]
    target: float
    is_ratio: bool
    """A ratio has to be at least the target; a difference or a figure alone at most."""

    @property
    def text(self) -> str:
        """For people."""
        if self.is_ratio:
            other = self.others[0] if len(self.others) == 1 else "the best peer"
            return f"{self.entry} ÷ {other} ≥ {self.target:g}"
        subtracted = f" − {self.others[0]}" if self.others else ""
        return f"{self.entry}{subtracted} ≤ {self.target:g} µs"

    def judge(self, rounds: Rounds) -> Verdict:
        """Whether the measurements reach it."""
        against = self._best_other(rounds)
        if self.others and not against:
            return Verdict(None, "", None)
        values = [self._value(mine, other) for mine, other in self._pairs(rounds, against)]
        if not values:
            return Verdict(None, against, None)
        reached = statistics.median(values)
        return Verdict(reached, against, reached >= self.target if self.is_ratio else reached <= self.target)

    def _best_other(self, rounds: Rounds) -> str:
        measured = {name: median(rounds.get(name, ())) for name in self.others}
        known = {name: value for name, value in measured.items() if value is not None}
        return max(known, key=lambda name: known[name]) if known else ""

    def _pairs(self, rounds: Rounds, against: str) -> list[tuple[float, float]]:
        mine = rounds.get(self.entry, ())
        others = rounds[against] if against else [0.0] * len(mine)
        pairs = zip(mine, others, strict=False)
        return [(value, other) for value, other in pairs if value is not None and other is not None]

    def _value(self, mine: float, other: float) -> float:
        return mine / other if self.is_ratio else mine - other


def ratio(entry: str, others: tuple[str, ...], *, at_least: float) -> Bar:
    """The entry's rate is at least so many times that of the best of the others."""
    return Bar(entry, others, at_least, is_ratio=True)


def time_within(entry: str, other: str = "", *, at_most: float) -> Bar:
    """The entry's time is at most so many microseconds, or so many above the other's."""
    return Bar(entry, (other,) if other else (), at_most, is_ratio=False)


def median(values: Sequence[float | None]) -> float | None:
    """Of those that were measured; None if none was."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
