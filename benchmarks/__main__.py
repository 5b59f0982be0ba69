"""`python -m benchmarks run`, `soak`, `report`, `list`."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from . import machine, opinions, publishing, report, results, workshop
from .environments import SetUpFailed
from .load import WrongAnswer
from .measuring import Plan, measure_all
from .peers import StartFailed
from .results import Results
from .scenarios import SCENARIOS, Scenario
from .soak import SoakPlan, soak, soak_report
from .stage import stage

app = typer.Typer(help="Modelyard beside other servers and the limits of the machine.", no_args_is_help=True)

_FULL = Plan(rounds=5, seconds=3.0, trial_seconds=1.5)
_QUICK = Plan(rounds=2, seconds=1.0, trial_seconds=0.4)


@app.command("list")
def list_scenarios() -> None:
    """Show the scenarios by name."""
    for scenario in SCENARIOS.values():
        print(f"{scenario.name:<12} {scenario.title}: {', '.join(entry.name for entry in scenario.entries)}")


@app.command()
def run(
    scenarios: Annotated[list[str] | None, typer.Argument(help="Names, see `list`; default: all.")] = None,
    quick: Annotated[bool, typer.Option(help="A look in a few minutes; the figures are rough.")] = False,
    rounds: Annotated[int | None, typer.Option(min=1, help="Default: 5; quick: 2.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.5, help="Of one turn. Default: 3; quick: 1.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where results go; one that exists is continued. Default: a new one.")
    ] = None,
    server: Annotated[
        list[str] | None, typer.Option(help="Only these take turns; may be given several times. Default: all.")
    ] = None,
    second_opinion: Annotated[bool, typer.Option(help="Ask perf_analyzer too, at the end.")] = True,
    publish: Annotated[bool, typer.Option(help="Put the table into benchmarks/README.md. Default: no.")] = False,
) -> None:
    """Measure, and write report, chart and raw figures."""
    usual = _QUICK if quick else _FULL
    plan = Plan(rounds or usual.rounds, seconds or usual.seconds, usual.trial_seconds)
    chosen = _limited(_named(scenarios or list(SCENARIOS)), server or [])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # servers are stopped then too
    run_results = _results(folder or _new_folder(quick=quick), plan)
    try:
        with stage(chosen) as running:
            measure_all(running, chosen, plan, run_results)
            if second_opinion:
                opinions.ask(running, chosen, plan, run_results)
    except (SetUpFailed, StartFailed) as error:
        sys.exit(f"cannot measure: {error}")
    finally:
        if report.measured(run_results):
            run_results.save()
            report.write(run_results)
    print(report.bars_table(run_results))
    print(f"\n{run_results.folder / report.REPORT}")
    if publish:
        publishing.publish(run_results)


@app.command("report")
def write_report(
    folder: Annotated[Path, typer.Argument(help="With a run's measurements.")],
    publish: Annotated[bool, typer.Option(help="Put the table into benchmarks/README.md too.")] = False,
) -> None:
    """Write a run's report and chart anew."""
    loaded = results.load(folder)
    report.write(loaded)
    if publish:
        publishing.publish(loaded)


@app.command("soak")
def run_soak(
    requests: Annotated[int, typer.Option(min=1000, help="How many.")] = 5_000_000,
    model: Annotated[str, typer.Option(help="small, wide, bert or cnn.")] = "small",
    in_flight: Annotated[int, typer.Option(min=1)] = 256,
    given_up: Annotated[float, typer.Option(min=0, max=1, help="Share: half cancelled, half expired.")] = 0.1,
    least_ms: Annotated[int, typer.Option(min=0, help="Calls are given up after so long, or longer.")] = 0,
    most_ms: Annotated[int, typer.Option(min=1, help="Calls are given up after so long at most.")] = 50,
) -> None:
    """Send millions of requests of which some are given up. Exit code 1 if one stays unanswered or memory grows."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    half, most_ms = given_up / 2, max(least_ms, most_ms)
    plan = SoakPlan(
        requests, in_flight, cancelled=half, expired=half, model=model, least_ms=least_ms, most_ms=most_ms
    )  # fmt: skip
    try:
        outcome = soak(plan)
    except (SetUpFailed, StartFailed, WrongAnswer) as error:
        sys.exit(f"cannot soak: {error}")
    told = soak_report(plan, outcome)
    path = workshop.folder("results") / f"soak-{datetime.now(UTC):%Y-%m-%d-%H%M}.json"
    path.write_text(json.dumps(told | {"machine": machine.describe()}, indent=1) + "\n")
    for name, value in told.items():
        print(f"{name:<22} {value if name != 'memory_bytes' else f'{len(value)} looks'}")
    print(path)
    sys.exit(1 if told["failures"] else 0)


def _named(names: list[str]) -> list[Scenario]:
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        sys.exit(f"no scenario is called {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    return [SCENARIOS[name] for name in names]


def _limited(scenarios: list[Scenario], servers: list[str]) -> list[Scenario]:
    """The scenarios with only these servers' entries; all if none is named."""
    if not servers:
        return scenarios
    known = {entry.server for scenario in SCENARIOS.values() for entry in scenario.entries}
    if unknown := [name for name in servers if name not in known]:
        sys.exit(f"no server is called {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    kept = [
        replace(scenario, entries=tuple(entry for entry in scenario.entries if entry.server in servers))
        for scenario in scenarios
    ]
    return [scenario for scenario in kept if scenario.entries]


def _results(folder: Path, plan: Plan) -> Results:
    if (folder / results.FILE_NAME).exists():
        return results.load(folder)
    return Results(folder, machine.describe(), {"rounds": plan.rounds, "seconds": plan.seconds})


def _new_folder(*, quick: bool) -> Path:
    name = datetime.now(UTC).strftime("%Y-%m-%d-%H%M")
    return workshop.folder("results") / name if quick else workshop.REPOSITORY / "benchmarks/results" / name


if __name__ == "__main__":
    app()
