"""One run: a cluster, jobs, a storm, calm, and the judgement."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.v1.training_job_pb2 import TrainingAttempt

from .callers import Callers, State, SubmittedJob, wait_for
from .faults import Strike
from .invariants import Finding, Judgement
from .recovery import Recovery, recoveries
from .stage import Stage, StageOptions, running_stage
from .storm import Storm
from .workload import RECIPES, TENANTS, PlannedJob, planned_jobs

_UNFINISHED_AT_ONCE = 10
_HEALTH_ROUNDS = 10
_HEALTH_S = 300.0

Cause = TrainingAttempt.EndCause

Tell = Callable[[str], None]


@dataclass(frozen=True)
class ChaosPlan:
    """What to do."""

    seed: int
    jobs: int
    minutes: float
    """No job is submitted and nothing is broken after that; what has been submitted is waited for."""
    stage: StageOptions
    pause_s: float = 3.0
    """Between two faults, in the mean."""
    outage: bool = True
    """Take all gateways away once."""
    calm_s: float = 600.0
    """So long after the storm everything must have ended."""


@dataclass
class ChaosResult:
    """What happened."""

    plan: ChaosPlan
    jobs: list[SubmittedJob] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    """The end of each job by name."""
    attempts: dict[str, int] = field(default_factory=dict)
    causes: dict[str, int] = field(default_factory=dict)
    """How often attempts ended by each cause."""
    resumed: int = 0
    """Attempts that went on from a checkpoint."""
    own_ends: dict[str, list[int]] = field(default_factory=dict)
    """Exit codes of programs that ended without being told to."""
    storm_s: float = 0.0
    calm_s: float = 0.0

    @property
    def survived(self) -> bool:
        """Whether every promise holds."""
        return bool(self.findings) and all(finding.holds for finding in self.findings)


def run_chaos(plan: ChaosPlan, folder: Path, tell: Tell) -> ChaosResult:
    """Runs it; logs and data stay in `folder`."""
    result = ChaosResult(plan)
    with running_stage(plan.stage, folder) as stage, Callers(stage) as callers:
        tell(f"the cluster runs: {', '.join(stage.keeper.programs)}")
        began = time.monotonic()
        storm = Storm(stage, callers, plan.seed, pause_s=plan.pause_s, outage=plan.outage)
        with storm:
            _submit_all(plan, callers, began + plan.minutes * 60, tell)
        result.jobs, result.strikes, result.storm_s = list(callers.jobs), storm.strikes, time.monotonic() - began
        tell(f"calm after {len(storm.strikes)} faults; {len(callers.unfinished())} jobs are left to finish")
        began = time.monotonic()
        stage.wait_until_well()
        ended = callers.finish_all(plan.calm_s)
        result.calm_s = time.monotonic() - began
        idle = _workers_without_a_job(stage, callers, tell) if ended else ["the jobs before did not end"]
        judgement = Judgement(stage, callers, storm.strikes)
        result.findings = [
            *judgement.findings(),
            Finding("every worker did another job afterwards", tuple(idle)),
            Finding("the faults themselves worked", tuple(storm.failures)),
        ]
        _note(result, judgement, stage)
    return result


def _submit_all(plan: ChaosPlan, callers: Callers, deadline: float, tell: Tell) -> None:
    """Keeps a few jobs waiting beside those that run, until all are submitted and ended, or time is up."""
    chance = random.Random(f"jobs of {plan.seed}")
    for job in planned_jobs(chance, plan.jobs):
        while len(callers.unfinished()) >= _UNFINISHED_AT_ONCE and time.monotonic() < deadline:
            time.sleep(0.1)
        if time.monotonic() >= deadline:
            return
        callers.submit(job, chance)
        if job.number % 20 == 19:
            tell(f"{job.number + 1} jobs submitted, {len(callers.unfinished())} of them unfinished")
    wait_for(callers.jobs, deadline - time.monotonic())


def _workers_without_a_job(stage: Stage, callers: Callers, tell: Tell) -> list[str]:
    """Gives out small jobs until each worker has done one; the names of those that did none."""
    missing = {worker.name: worker for worker in stage.workers}
    for index in range(_HEALTH_ROUNDS):
        numbers = range(10_000 + index * 10, 10_000 + index * 10 + len(stage.workers))
        jobs = [
            callers.submit(PlannedJob(number, TENANTS[0], RECIPES[0], f"{TENANTS[0]}-0"), random.Random(number))
            for number in numbers
        ]
        if not wait_for([job for job in jobs if job is not None], _HEALTH_S):
            break
        for job in jobs:
            found = callers.clients[TENANTS[0]].training.get(job.name) if job is not None else None
            pid = int(found.worker.rpartition("/")[2]) if found is not None else 0
            done = [name for name, worker in missing.items() if pid in {p.pid for p in worker.kept.tree()}]
            for name in done:
                del missing[name]
        if not missing:
            return []
    tell(f"without a job: {', '.join(missing)}")
    return list(missing)


def _note(result: ChaosResult, judgement: Judgement, stage: Stage) -> None:
    for name, job in judgement.final.items():
        result.states[name] = State.Name(job.state).removeprefix("STATE_")
        result.attempts[name] = job.attempt
    result.causes = dict(Counter(Cause.Name(one.end_cause) for one in judgement.attempts))
    result.resumed = sum(one.resumed_step > 0 for one in judgement.attempts)
    result.recoveries = recoveries(result.strikes, {job.id: job for job in result.jobs})
    result.own_ends = {
        name: list(kept.own_ends) for name, kept in stage.keeper.programs.items() if kept.own_ends
    }  # fmt: skip
