"""Measurements as a JSON file, written after every turn, so that an interrupted run goes on where it was."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .bars import Rounds
from .load import Measured
from .scenarios import Scenario

FILE_NAME = "measurements.json"
_FORMAT = 1


@dataclass
class Results:
    """All that was measured in a run."""

    folder: Path
    machine: dict[str, Any]
    options: dict[str, Any]
    """Rounds and seconds, as chosen."""
    chosen: dict[str, str] = field(default_factory=dict)
    """Settings found best, by `SCENARIO/ENTRY`."""
    failures: dict[str, str] = field(default_factory=dict)
    """Servers that could not be started."""
    restarts: dict[str, int] = field(default_factory=dict)
    """How often servers died, and were started again."""
    idle_cores: float | None = None
    turns: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    """By scenario and entry, one measurement per round; or `error`."""
    opinions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What perf_analyzer saw, by `SCENARIO/ENTRY`."""

    def add(self, scenario: Scenario, entry: str, turn: Measured | str) -> None:
        """Appends a round's measurement, or why there is none."""
        rounds = self.turns.setdefault(scenario.name, {}).setdefault(entry, [])
        rounds.append({"error": turn} if isinstance(turn, str) else turn.as_dict())
        self.save()

    def rounds_of(self, scenario: Scenario) -> int:
        """How many whole rounds there are."""
        turns = self.turns.get(scenario.name, {})
        return min((len(turns.get(entry.name, ())) for entry in scenario.entries), default=0)

    def was_measured(self, scenario: Scenario) -> bool:
        """Whether there is a round of at least one entry."""
        return any(self.turns.get(scenario.name, {}).values())

    def drop_partial_round(self, scenario: Scenario) -> None:
        """Forgets the turns of a round that was interrupted."""
        whole = self.rounds_of(scenario)
        for rounds in self.turns.get(scenario.name, {}).values():
            del rounds[whole:]

    def figures(self, scenario: Scenario) -> Rounds:
        """The figures that the scenario compares."""
        field_name = scenario.figure.value
        turns = self.turns.get(scenario.name, {})
        return {entry: [turn.get(field_name) for turn in rounds] for entry, rounds in turns.items()}

    def save(self) -> None:
        """Writes everything down, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"format": _FORMAT} | {key: value for key, value in vars(self).items() if key != "folder"}
        scratch = self.folder / f"{FILE_NAME}.part"
        scratch.write_text(json.dumps(content, indent=1) + "\n")
        scratch.replace(self.folder / FILE_NAME)


def load(folder: Path) -> Results:
    """What a run has written; raises ValueError if it is of another format, OSError if it is not there."""
    content = json.loads((folder / FILE_NAME).read_text())
    if content.pop("format") != _FORMAT:
        raise ValueError(f"{folder / FILE_NAME} was written by another version of the benchmarks")
    return Results(folder, **content)
