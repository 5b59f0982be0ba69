"""When a free runner waits for callers to come back, and when it has learned that they do not."""

from __future__ import annotations

import time

import pytest

from modelyard.inference.execution.pace import LEAST_TRUST, LINGER_MOST_S, LINGER_SHARE, Pace


class Clock:
    """Time that a test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


TOOK_S = 0.01


def answered(pace: Pace, clock: Clock, rows: int) -> None:
    """A batch of requests with one row each."""
    pace.begun(rows)
    clock.now += TOOK_S
    pace.ended(rows, rows, TOOK_S)


def test_behind_one_request_nothing_is_waited_for(clock: Clock) -> None:
    pace = Pace(1)
    answered(pace, clock, 1)
    assert pace.linger_s(0) == 0


def test_the_callers_of_a_batch_are_given_a_moment_to_come_back(clock: Clock) -> None:
    pace = Pace(1)
    answered(pace, clock, 8)
    assert pace.linger_s(3) == pytest.approx(TOOK_S * LINGER_SHARE)
    assert pace.linger_s(8) == 0
    clock.now += TOOK_S * LINGER_SHARE
    assert pace.linger_s(3) == 0


def test_a_long_run_earns_no_longer_wait_than_the_longest(clock: Clock) -> None:
    pace = Pace(1)
    pace.begun(8)
    pace.ended(8, 8, 10.0)
    assert pace.linger_s(0) == pytest.approx(LINGER_MOST_S)


def test_less_is_waited_where_callers_do_not_come_back_and_more_again_when_they_do(clock: Clock) -> None:
    pace = Pace(1)
    answered(pace, clock, 8)
    waits = []
    for _ in range(6):  # two of eight come back, six new ones later
        waits.append(pace.linger_s(0))
        clock.now += 1
        pace.begun(2)
        pace.ended(8, 8, TOOK_S)
    assert waits == sorted(waits, reverse=True)
    assert pace.linger_s(0) == pytest.approx(LEAST_TRUST * TOOK_S * LINGER_SHARE)
    for _ in range(5):
        answered(pace, clock, 8)
    assert pace.linger_s(0) == pytest.approx(TOOK_S * LINGER_SHARE)
