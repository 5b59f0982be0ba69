"""What a run says, as Markdown with a chart."""

from __future__ import annotations

from collections.abc import Sequence

from .bars import Bar, Figure, Verdict, median
from .chart import Panel, Row, draw
from .results import FILE_NAME, Results
from .scenarios import SCENARIOS, Entry, Scenario

REPORT, CHART = "report.md", "chart.svg"
_MARKS = {True: "reached", False: "**missed**", None: "not measured"}


def write(results: Results) -> None:
    """Writes report and chart beside the measurements."""
    (results.folder / CHART).write_text(draw([_panel(results, scenario) for scenario in measured(results)]))
    (results.folder / REPORT).write_text(markdown(results))


def measured(results: Results) -> list[Scenario]:
    """The scenarios that have rounds, be it not of every entry."""
    return [scenario for scenario in SCENARIOS.values() if results.was_measured(scenario)]


def markdown(results: Results) -> str:
    """The whole report."""
    parts = ["# Measurements", _made(results), "## Bars", bars_table(results), f"![rates and times]({CHART})"]
    for scenario in measured(results):
        parts += [f"## {scenario.title}", _scenario_table(results, scenario), _errors(results, scenario)]
    if results.opinions:
        parts += ["## Second opinion: perf_analyzer", _opinions(results)]
    parts += ["## Machine and versions", _machine(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def bars_table(results: Results) -> str:
    """Every bar with what was reached."""
    rows = [
        [scenario.title, bar.text, reached_text(bar, verdict), _MARKS[verdict.passed]]
        for scenario in measured(results)
        for bar, verdict in judged(results, scenario)
    ]
    return _table(["work", "to reach", "reached", ""], rows)


def judged(results: Results, scenario: Scenario) -> list[tuple[Bar, Verdict]]:
    """The scenario's bars with their verdicts."""
    rounds = results.figures(scenario)
    return [(bar, bar.judge(rounds)) for bar in scenario.bars]


def reached_text(bar: Bar, verdict: Verdict) -> str:
    """What was reached, for people."""
    if verdict.reached is None:
        return "–"
    if not bar.is_ratio:
        return f"{verdict.reached:,.0f} µs"
    number = f"{verdict.reached:.2f}" if bar.target < 2 else f"{verdict.reached:.1f}"
    return f"{number} ({verdict.against})" if len(bar.others) > 1 else number


def _made(results: Results) -> str:
    machine, options = results.machine, results.options
    return (
        f"{machine['time']}, commit {machine['commit']}: {options['rounds']} interleaved rounds of "
        f"{options['seconds']:g} s per turn on {machine['cores']} cores ({machine['processor']}), which servers and "
        "load generator share. Bars are medians of the ratios within each round; tables show medians over the rounds "
        f"and the worst and best round. The raw figures: [{FILE_NAME}]({FILE_NAME}). How to repeat it: "
        "[benchmarks/README.md](../../README.md)."
    )


def _scenario_table(results: Results, scenario: Scenario) -> str:
    figures = results.figures(scenario)
    unit = "requests/s" if scenario.figure is Figure.RATE else "p50 µs"
    rows = []
    for entry in scenario.entries:
        if entry.name not in figures:
            continue
        known = [value for value in figures[entry.name] if value is not None]
        middle = median(known)
        spread = f"{min(known):,.0f} to {max(known):,.0f}" if known else "–"
        shown = "–" if middle is None else f"{middle:,.0f}"
        setting = results.chosen.get(f"{scenario.name}/{entry.name}", "")
        rows.append([entry.name, shown, spread, _mean_ms(results, scenario, entry), setting])
    return _table(["", unit, "worst to best" if unit == "requests/s" else "range", "mean ms", "setting"], rows)


def _mean_ms(results: Results, scenario: Scenario, entry: Entry) -> str:
    turns = results.turns[scenario.name].get(entry.name, [])
    middle = median([turn.get("mean_us") for turn in turns])
    return "–" if middle is None or entry.server == "raw" else f"{middle / 1000:.2f}"


def _errors(results: Results, scenario: Scenario) -> str:
    lines = [
        f"- {entry}, round {number + 1}: {turn['error'].splitlines()[0]}"
        for entry, turns in results.turns[scenario.name].items()
        for number, turn in enumerate(turns)
        if "error" in turn
    ]
    return "\n".join(["Not measured:", "", *lines]) if lines else ""


def _opinions(results: Results) -> str:
    rows = []
    for key, opinion in results.opinions.items():
        shown = opinion["error"].splitlines()[-1] if "error" in opinion else f"{opinion['rate']:,.0f}"
        p50 = opinion.get("p50_us")
        rows.append([key, shown, "–" if p50 is None else f"{p50:,.0f}"])
    return _table(["", "requests/s", "p50 µs"], rows)


def _machine(results: Results) -> str:
    machine = results.machine
    rows = [[key, str(value)] for key, value in machine.items() if not isinstance(value, dict)]
    rows += [[name, version] for group in ("versions", "peers") for name, version in machine[group].items()]
    if results.idle_cores is not None:
        rows.append(["cores that all waiting servers take together", f"{results.idle_cores:.3f}"])
    rows += [[f"{server} died and was started again", f"{count} times"] for server, count in results.restarts.items()]
    rows += [[f"{server} did not start", reason.splitlines()[0]] for server, reason in results.failures.items()]
    return _table(["", ""], rows)


def _panel(results: Results, scenario: Scenario) -> Panel:
    figures, unit = results.figures(scenario), "/s" if scenario.figure is Figure.RATE else " µs"
    rows = []
    for entry in scenario.entries:
        known = [value for value in figures.get(entry.name, ()) if value is not None]
        middle = median(known)
        if middle is not None:
            rows.append(Row(entry.name, middle, min(known), max(known), f"{middle:,.0f}{unit}"))
    return Panel(f"{scenario.title} ({'requests/s' if unit == '/s' else 'p50'})", rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
