"""Interleaved rounds: A B C, B C A, C A B … so that what disturbs the machine disturbs all alike."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from .load import Measured, WrongAnswer
from .load.h2load import LoadFailed
from .results import Results
from .scenarios import Entry, Scenario
from .stage import Stage


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    rounds: int
    seconds: float
    """Of one turn."""
    trial_seconds: float
    """Of one setting when the best is looked for."""


def measure_all(stage: Stage, scenarios: Sequence[Scenario], plan: Plan, results: Results) -> None:
    """Measures what is missing in the results."""
    results.failures = stage.failures
    results.restarts = stage.restarts
    results.idle_cores = stage.idle_cores(2.0)
    for scenario in scenarios:
        results.drop_partial_round(scenario)
        done = results.rounds_of(scenario)
        if done >= plan.rounds:
            continue
        _say(f"{scenario.name}: looking for the best settings")
        stage.prepare(scenario, plan.trial_seconds)
        results.chosen |= stage.chosen
        for number in range(done, plan.rounds):
            for entry in rotated(scenario.entries, number):
                results.add(scenario, entry.name, _turn(stage, scenario, entry, plan.seconds))
            _say(f"{scenario.name}: round {number + 1} of {plan.rounds}: {_line(results, scenario)}")


def rotated(entries: Sequence[Entry], number: int) -> list[Entry]:
    """The order of a round: nobody always follows the same one after a pause."""
    first = number % len(entries)
    return [*entries[first:], *entries[:first]]


def _turn(stage: Stage, scenario: Scenario, entry: Entry, seconds: float) -> Measured | str:
    if entry.server in stage.failures:
        return f"{entry.server} did not start"
    try:
        return stage.turn(scenario, entry, seconds)
    except (WrongAnswer, LoadFailed, subprocess.SubprocessError, KeyError) as error:
        _say(f"{scenario.name}/{entry.name}: {error}")
        return f"{type(error).__name__}: {error}"


def _line(results: Results, scenario: Scenario) -> str:
    figures = results.figures(scenario)
    last = {entry: rounds[-1] for entry, rounds in figures.items()}
    return ", ".join(f"{entry} {'failed' if value is None else f'{value:,.0f}'}" for entry, value in last.items())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
