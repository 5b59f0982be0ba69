"""How many of a trainer's lines pass."""

from __future__ import annotations

import pytest

from modelyard_workers import log_limit
from modelyard_workers.log_limit import BURST_LINES, LINES_PER_S, LogLimit


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_passes_and_the_rest_is_counted_once(clock: Clock) -> None:
    limit = LogLimit(clock)
    passed = sum(limit.admits() for _ in range(BURST_LINES + 500))
    assert passed == BURST_LINES
    gap = limit.gap()
    assert gap is not None
    assert gap.startswith("… 500 log lines dropped")
    assert limit.gap() is None


def test_lines_pass_again_only_when_there_is_room_for_a_readable_stretch(clock: Clock) -> None:
    limit = LogLimit(clock)
    while limit.admits():
        pass
    clock.now = (BURST_LINES / 2 - 1) / LINES_PER_S
    assert limit.flooded()
    assert not limit.admits()
    clock.now = (BURST_LINES / 2) / LINES_PER_S
    assert not limit.flooded()
    assert sum(limit.admits() for _ in range(BURST_LINES)) == BURST_LINES / 2


def test_a_moderate_pace_never_loses_a_line(clock: Clock) -> None:
    limit = LogLimit(clock)
    for _ in range(20 * BURST_LINES):
        clock.now += 1.001 / LINES_PER_S
        assert limit.admits()
    assert limit.gap() is None


def test_an_attempt_has_a_limit_however_slowly_it_prints(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_limit, "LINES_PER_ATTEMPT", 10)
    limit = LogLimit(clock)
    for _ in range(10):
        clock.now += 3_600
        assert limit.admits()
    clock.now += 3_600
    assert not limit.admits()
    assert "more than 10 lines" in (limit.gap() or "")
