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


MOST = 32
"""Rows of a batch."""


def answered(pace: Pace, clock: Clock, rows: int, waiting_rows: int = 0) -> None:
    """A batch of requests with one row each, all that were in the queue; so many came while it was computed."""
    pace.begun(rows, rows)
    clock.now += TOOK_S
    pace.ended(rows, rows, TOOK_S, waiting_rows)


def linger_s(pace: Pace, waiting_rows: int) -> float:
    return pace.linger_s(waiting_rows, MOST)


def test_behind_one_request_nothing_is_waited_for(clock: Clock) -> None:
    pace = Pace(1)
    answered(pace, clock, 1)
    assert linger_s(pace, 0) == 0


def test_the_callers_of_a_batch_are_given_a_moment_to_come_back(clock: Clock) -> None:
    pace = Pace(1)
    answered(pace, clock, 8)
    assert linger_s(pace, 3) == pytest.approx(TOOK_S * LINGER_SHARE)
    assert linger_s(pace, 8) == 0
    clock.now += TOOK_S * LINGER_SHARE
    assert linger_s(pace, 3) == 0


def test_a_long_run_earns_no_longer_wait_than_the_longest(clock: Clock) -> None:
    pace = Pace(1)
    pace.begun(8, 8)
    pace.ended(8, 8, 10.0, 0)
    assert linger_s(pace, 0) == pytest.approx(LINGER_MOST_S)


def test_less_is_waited_where_callers_do_not_come_back_and_more_again_when_they_do(clock: Clock) -> None:
    pace = Pace(1)
    answered(pace, clock, 8)
    waits = []
    for _ in range(6):  # two of eight come back, six new ones later
        waits.append(linger_s(pace, 0))
        clock.now += 1
        pace.begun(2, 2)
        pace.ended(8, 8, TOOK_S, 0)
    assert waits == sorted(waits, reverse=True)
    assert linger_s(pace, 0) == pytest.approx(LEAST_TRUST * TOOK_S * LINGER_SHARE)
    for _ in range(5):
        assert not linger_s(pace, 8)
        answered(pace, clock, 8)
    assert linger_s(pace, 0) == pytest.approx(TOOK_S * LINGER_SHARE)


def test_others_that_wait_are_joined_by_the_callers_just_answered(clock: Clock) -> None:
    pace = Pace(1)
    answered(pace, clock, 16, waiting_rows=16)
    assert linger_s(pace, 16) > 0
    assert linger_s(pace, 31) > 0
    assert linger_s(pace, 32) == 0
    answered(pace, clock, 32)
    assert linger_s(pace, 31) > 0
    assert linger_s(pace, 32) == 0


def test_one_caller_waits_for_the_other(clock: Clock) -> None:
    pace = Pace(1)
    answered(pace, clock, 1, waiting_rows=1)
    assert linger_s(pace, 1) > 0
    assert linger_s(pace, 2) == 0


def test_nobody_is_waited_for_when_the_queue_fills_a_batch(clock: Clock) -> None:
    pace = Pace(1)
    answered(pace, clock, MOST, waiting_rows=MOST - 1)
    assert linger_s(pace, MOST - 1) > 0
    assert linger_s(pace, MOST) == 0
    answered(pace, clock, MOST, waiting_rows=MOST)
    assert linger_s(pace, MOST) == 0


def test_callers_of_two_runners_are_expected_together(clock: Clock) -> None:
    pace = Pace(2)
    pace.begun(8, 8)
    pace.begun(4, 4)
    pace.ended(8, 8, TOOK_S, 0)
    pace.ended(4, 4, TOOK_S, 0)
    assert linger_s(pace, 11) > 0
    assert linger_s(pace, 12) == 0


def test_requests_now_and_then_are_no_sign_of_callers_that_do_not_come_back(clock: Clock) -> None:
    pace = Pace(1)
    answered(pace, clock, 8)
    for _ in range(9):
        clock.now += 1
        assert linger_s(pace, 1) == 0
        answered(pace, clock, 1)
    answered(pace, clock, 8)
    assert linger_s(pace, 1) == pytest.approx(TOOK_S * LINGER_SHARE)
