"""Which version answers which caller of an alias that sends a share of its requests elsewhere.

A caller is told apart by the value of one metadata key. Each version draws a number for it, weighted by the version's
share, and the lowest wins (weighted rendezvous hashing): the same caller gets the same version from every pod. When a
share grows, callers move only to that version or away from the alias's own, whose share shrinks by as much: between
two versions as few as possible, between several at most twice as many. The draw is among the versions that are wanted;
what falls to one that this pod has not loaded is answered by the alias's own version, so that no other share is ever
exceeded and the callers of the others stay where they are.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from .desired import WantedTraffic
from .versions import LoadedVersion

_RANGE = 2.0**64


@dataclass(frozen=True, slots=True)
class Arm:
    """A wanted version, its share, and who answers in its place now."""

    number: int
    percent: float
    version: LoadedVersion


class Split:
    """The versions that answer for one alias."""

    def __init__(self, name: str, sticky_key: str, arms: Sequence[Arm]) -> None:
        """`name` of the alias, so that the callers who get a canary of one model are not those of another's too."""
        self._sticky_key = sticky_key
        self._arms = [arm for arm in arms if arm.percent > 0]
        self._seeds = [f"{name}/{arm.number}/".encode() for arm in self._arms]
        self._percents = [arm.percent for arm in self._arms]

    @classmethod
    def of(
        cls, name: str, number: int, own: LoadedVersion, traffic: WantedTraffic, loaded: Mapping[int, LoadedVersion]
    ) -> Split:
        """For an alias whose own version should be `number`, and is `own` now."""
        arms = [Arm(other, percent, loaded.get(other, own)) for other, percent in traffic.split]
        rest = max(0.0, 100.0 - sum(arm.percent for arm in arms))
        return cls(name, traffic.sticky_key, [Arm(number, rest, own), *arms])

    def choose(self, metadata: Mapping[str, str | bytes]) -> LoadedVersion:
        """The version for a call with this metadata."""
        value = metadata.get(self._sticky_key)
        if value is None:
            (arm,) = random.choices(self._arms, self._percents)  # noqa: S311 - spreads load, guards nothing
            return arm.version
        caller = value if isinstance(value, bytes) else value.encode()
        draws = [
            -math.log(_uniform(seed + caller)) / percent
            for seed, percent in zip(self._seeds, self._percents, strict=True)
        ]
        return self._arms[draws.index(min(draws))].version


def _uniform(text: bytes) -> float:
    """A number above 0 and up to 1 that any pod computes alike."""
    return (int.from_bytes(blake2b(text, digest_size=8).digest(), "big") + 1) / _RANGE
