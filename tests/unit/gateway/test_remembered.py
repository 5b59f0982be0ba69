"""Answers that are good for a while."""

from __future__ import annotations

import pytest

from modelyard.gateway.remembered import Remembered


class Oracle:
    """Answers with a number that counts the questions."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_away = False

    async def __call__(self) -> int:
        self.asked += 1
        if self.is_away:
            raise ConnectionError
        return self.asked


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_an_answer_is_asked_for_once_until_its_time_is_over() -> None:
    clock, ask = Clock(), Oracle()
    answers: Remembered[str, int] = Remembered(lifetime_s=5, limit=10, clock=clock)
    assert [await answers.get("a", ask), await answers.get("a", ask)] == [1, 1]
    assert await answers.get("b", ask) == 2
    clock.now += 5
    assert await answers.get("a", ask) == 3


async def test_none_is_an_answer_too() -> None:
    answers: Remembered[str, None] = Remembered(lifetime_s=5, limit=10)
    asked = []

    async def ask() -> None:
        asked.append(1)

    await answers.get("a", ask)
    await answers.get("a", ask)
    assert asked == [1]


async def test_an_error_is_not_kept() -> None:
    ask = Oracle()
    answers: Remembered[str, int] = Remembered(lifetime_s=5, limit=10)
    ask.is_away = True
    with pytest.raises(ConnectionError):
        await answers.get("a", ask)
    ask.is_away = False
    assert await answers.get("a", ask) == 2


async def test_the_oldest_answers_make_room() -> None:
    ask = Oracle()
    answers: Remembered[int, int] = Remembered(lifetime_s=5, limit=2)
    for key in (1, 2, 3):
        await answers.get(key, ask)
    assert await answers.get(3, ask) == 3
    assert await answers.get(1, ask) == 4
