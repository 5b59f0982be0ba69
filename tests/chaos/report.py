"""Says to somebody who has never seen the suite what was done and what survived."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator

from .invariants import shown
from .run import ChaosResult


def report(result: ChaosResult) -> str:
    """The whole report."""
    parts = (_summary, _faults, _ends, _promises, _repeat)
    return "\n\n".join("\n".join(part(result)) for part in parts)


def _summary(result: ChaosResult) -> Iterator[str]:
    plan, stage = result.plan, result.plan.stage
    store = "PostgreSQL and 2 gateways" if stage.postgres else "SQLite and 1 gateway"
    timings = stage.timings
    yield f"Chaos, seed {plan.seed}: {len(result.jobs)} jobs, {len(result.strikes)} faults in {result.storm_s:.0f} s"
    yield (
        f"{store}, {stage.workers} workers, Redis, registry, door{', pod' if stage.pod else ''}; "
        f"{timings.name} timings (lease {timings.lease_s:g} s, reports every {timings.report_interval_s:g} s)"
    )
    yield f"After the last fault everything had ended within {result.calm_s:.0f} s."
    if len(result.jobs) < plan.jobs:
        yield f"Time was up before all {plan.jobs} jobs were submitted."


def _faults(result: ChaosResult) -> Iterator[str]:
    seconds: dict[str, list[float]] = defaultdict(list)
    for recovery in result.recoveries:
        seconds[recovery.fault].append(recovery.seconds)
    counts = Counter(strike.fault for strike in result.strikes)
    hits = Counter(strike.fault for strike in result.strikes for _ in strike.hit)
    yield f"{'fault':<32}{'times':>6}{'jobs hit':>10}{'training again after, s':>32}"
    for fault, count in counts.most_common():
        yield f"{fault:<32}{count:>6}{hits[fault] or '':>10}{_spread(seconds[fault]):>32}"
    for strike in result.strikes:
        if strike.fault.startswith("gateways away"):
            yield f"While all gateways were away for {strike.seconds:.0f} s in all: {strike.note}."
    for program, codes in result.own_ends.items():
        yield f"{program} ended by itself {len(codes)} times, exit codes {dict(Counter(codes))}"


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return ""
    return f"median {statistics.median(seconds):.1f}, most {max(seconds):.1f} ({len(seconds)})"


def _ends(result: ChaosResult) -> Iterator[str]:
    by_recipe: dict[str, Counter[str]] = defaultdict(Counter)
    for job in result.jobs:
        by_recipe[job.plan.recipe.name][result.states.get(job.name, "GONE")] += 1
    for recipe, ends in sorted(by_recipe.items()):
        yield f"{recipe:<12}{', '.join(f'{count} {end}' for end, count in ends.most_common())}"
    attempts = Counter(result.attempts.get(job.name, 0) for job in result.jobs)
    yield f"attempts    {', '.join(f'{count} jobs with {number}' for number, count in sorted(attempts.items()))}"
    causes = sorted(result.causes.items(), key=lambda item: -item[1])
    yield "their ends  " + ", ".join(f"{count} {name.removeprefix('END_CAUSE_')}" for name, count in causes)
    yield f"resumed     {result.resumed} attempts went on from a checkpoint"
    events = sum(len(job.events) for job in result.jobs)
    yield f"events      {events} watched live, over {sum(job.breaks for job in result.jobs)} reconnections by hand"


def _promises(result: ChaosResult) -> Iterator[str]:
    for finding in result.findings:
        detail = f" ({finding.detail})" if finding.detail else ""
        yield f"{'kept  ' if finding.holds else 'BROKEN'}  {finding.promise}{detail}"
        yield from (f"        {line}" for line in shown(finding.objections))


def _repeat(result: ChaosResult) -> Iterator[str]:
    plan = result.plan
    yield "SURVIVED" if result.survived else "NOT SURVIVED"
    repeated = f"SEED={plan.seed} JOBS={plan.jobs} MINUTES={plan.minutes:g} PAUSE={plan.pause_s:g}"
    yield f"The same faults on the same jobs: make chaos {repeated}"
    yield "(The seed decides what happens, after which pauses; what a fault finds depends on the machine's speed too.)"
