"""What a soak is judged by."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.soak import Outcome, problems_in_log
from benchmarks.soak.verdict import counts

GOOD = Outcome(
    done=100,
    ended={"plain/OK": 90, "cancelled/CANCELLED": 4, "cancelled/OK": 1, "expired/DEADLINE_EXCEEDED": 5},
    wrong_answers=0,
    seconds=1.0,
    memory_bytes=[50, *[100] * 19],
    log_problems=[],
)


def test_calls_may_be_answered_before_they_are_given_up() -> None:
    assert GOOD.failures(wanted=100) == []
    assert GOOD.given_up == 9


def test_a_plain_call_must_be_answered() -> None:
    outcome = replace(GOOD, ended={"plain/OK": 98, "plain/DEADLINE_EXCEEDED": 1, "expired/CANCELLED": 1})
    assert outcome.unanswered == 2
    assert outcome.failures(wanted=100) == ["2 calls were not answered as they should be"]


def test_everything_else_that_may_not_happen() -> None:
    assert GOOD.failures(wanted=101) == ["100 of 101 calls ended"]
    assert replace(GOOD, wrong_answers=1).failures(100) == ["1 answers were wrong"]
    assert replace(GOOD, log_problems=["bad"]).failures(100) == ["1 problems in the log, first: bad"]


def test_memory_is_compared_once_everything_was_used() -> None:
    assert GOOD.growth == 0.0  # the first look is before the first request
    leaking = replace(GOOD, memory_bytes=[100 + step for step in range(20)])
    assert leaking.failures(100) == ["memory grew by 15.6%"]


def test_calls_on_connections_that_the_client_broke_are_not_the_pods() -> None:
    lost = replace(GOOD, ended={**GOOD.ended, "plain/OK": GOOD.ended["plain/OK"] - 3, "plain/UNAVAILABLE": 3})
    assert lost.unanswered == 3
    broken = replace(lost, broken_connections=1, calls_per_connection=2)
    assert (broken.broken_off, broken.unanswered) == (2, 1)
    assert replace(broken, broken_connections=2).failures(broken.done) == []


def test_the_programs_lines_are_counted_by_name() -> None:
    output = "done 100000\nresult done 7\nresult plain/0 5\nresult cancelled/1 2\nresult wrong-answer 1\n"
    assert counts(output) == {"done": 7, "plain/OK": 5, "cancelled/CANCELLED": 2, "wrong-answer": 1}


def test_warnings_errors_and_tracebacks_are_problems() -> None:
    good = ['{"event": "call", "level": "info"}', "", "[2026-01-01 00:00:00.000][1][info][main] ready"]
    bad = [
        '{"event": "x", "level": "warning"}', '{"event": "x", "level": "error"}', '{"broken',
        "[2026-01-01 00:00:00.000][1][critical][main] x", "Traceback (most recent call last):",
    ]  # fmt: skip
    assert problems_in_log([*good, *bad]) == bad
