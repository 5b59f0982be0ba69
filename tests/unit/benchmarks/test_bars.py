"""Whether a bar is reached."""

from __future__ import annotations

from benchmarks.bars import Verdict, median, ratio, time_within
from benchmarks.scenarios import SCENARIOS


def test_a_ratio_is_the_median_of_the_ratios_within_the_rounds() -> None:
    # The machine was slow in the second round, for both; the ratio of the medians would be 9.
    rounds = {"pod": [100.0, 20.0, 90.0], "raw": [100.0, 10.0, 10.0]}
    verdict = ratio("pod", ("raw",), at_least=2).judge(rounds)
    assert verdict == Verdict(2.0, "raw", passed=True)


def test_it_is_compared_with_the_best_of_several() -> None:
    rounds = {"pod": [100.0, 100.0], "triton": [20.0, 30.0], "mlserver": [10.0, 11.0], "kserve": [None, None]}
    verdict = ratio("pod", ("triton", "mlserver", "kserve"), at_least=8).judge(rounds)
    assert verdict.against == "triton"
    assert verdict.reached is not None
    assert 4 < verdict.reached < 4.5
    assert verdict.passed is False


def test_rounds_in_which_one_side_failed_do_not_count() -> None:
    rounds = {"pod": [100.0, None, 90.0], "raw": [None, 10.0, 100.0]}
    assert ratio("pod", ("raw",), at_least=0.95).judge(rounds) == Verdict(0.9, "raw", passed=False)


def test_without_both_sides_nothing_is_claimed() -> None:
    bar = ratio("pod", ("raw",), at_least=0.95)
    assert bar.judge({"pod": [1.0]}) == Verdict(None, "", None)
    assert bar.judge({"pod": [None], "raw": [1.0]}) == Verdict(None, "raw", None)


def test_times_are_bounded_from_above() -> None:
    assert time_within("pod", at_most=300).judge({"pod": [250.0, 400.0, 290.0]}) == Verdict(290.0, "", passed=True)
    rounds = {"pod": [900.0, 2500.0], "pod, no pauses": [400.0, 400.0]}
    assert time_within("pod", "pod, no pauses", at_most=1000).judge(rounds).reached == 1300.0


def test_the_median_leaves_out_what_was_not_measured() -> None:
    assert median([3.0, None, 1.0]) == 2.0
    assert median([None]) is None


def test_every_bar_compares_entries_of_its_scenario() -> None:
    for scenario in SCENARIOS.values():
        names = {entry.name for entry in scenario.entries}
        assert len(names) == len(scenario.entries)
        for bar in scenario.bars:
            assert {bar.entry, *bar.others} <= names
