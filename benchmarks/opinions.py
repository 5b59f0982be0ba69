"""perf_analyzer's figures beside h2load's, for the servers that it can ask: it wants Triton's ModelConfig."""

from __future__ import annotations

import sys
from dataclasses import asdict

from .load import perf_analyzer
from .measuring import Plan
from .models import CATALOGUE
from .results import Results
from .scenarios import Scenario
from .stage import Stage

_SERVERS = ("pod", "door", "triton")
_SCENARIOS = ("small-32", "wide-32", "bert-8")


def ask(stage: Stage, scenarios: list[Scenario], plan: Plan, results: Results) -> None:
    """One measurement for each, written into the results."""
    for scenario in scenarios:
        if scenario.name not in _SCENARIOS:
            continue
        for entry in scenario.entries:
            if entry.server not in _SERVERS or entry.server not in stage.speakers or entry.setting is not None:
                continue
            speaker = stage.speakers[entry.server]
            model = stage.model_of(scenario, entry)
            path = CATALOGUE[scenario.model].file()
            try:
                seen = perf_analyzer.measure(speaker, model, path, entry.load, plan.seconds)
                results.opinions[f"{scenario.name}/{entry.name}"] = asdict(seen)
            except (perf_analyzer.NoOpinion, perf_analyzer.SetUpFailed) as error:
                print(f"perf_analyzer, {scenario.name}/{entry.name}: {error}", file=sys.stderr)
                results.opinions[f"{scenario.name}/{entry.name}"] = {"error": str(error).strip() or "no output"}
            results.save()
