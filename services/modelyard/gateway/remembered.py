"""Answers that are good for a while, so that many submissions do not ask the same question again and again."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """The newest answers by key, at most `limit` of them, each for `lifetime_s` seconds. Errors are not kept."""

    def __init__(self, *, lifetime_s: float, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._lifetime_s = lifetime_s
        self._limit = limit
        self._clock = clock
        self._answers: OrderedDict[K, tuple[float, V]] = OrderedDict()

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        """The answer for `key`; `ask` is called for one that is not known, or not any more."""
        known = self._answers.get(key)
        if known is not None and self._clock() < known[0]:
            return known[1]
        answer = await ask()
        self._answers.pop(key, None)
        self._answers[key] = (self._clock() + self._lifetime_s, answer)
        if len(self._answers) > self._limit:
            self._answers.popitem(last=False)
        return answer
