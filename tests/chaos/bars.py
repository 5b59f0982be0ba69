"""Single faults on a quiet cluster with default settings, timed: what is promised of recovery, cancel and outages."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from modelyard.gateway.jobs import State
from modelyard.v1.training_job_pb2 import TrainingJobEvent
from modelyard.v1.training_spec_pb2 import TrainingSpec
from support.processes import is_alive

from .callers import Callers, SubmittedJob
from .histories import changes, faults_of
from .stage import Stage, StagedWorker, StageOptions, running_stage
from .timings import DEFAULT
from .workload import RECIPES, TENANTS, PlannedJob, spec_of

_ENDLESS_EPOCHS = 1_000_000
_LONG_S = 600.0
_BEFORE_A_BLOW_S = 75.0
"""Of training: by then there is a checkpoint, one a minute by default."""

Tell = Callable[[str], None]


@dataclass
class Bar:
    """One thing that was measured."""

    name: str
    seconds: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        """For people."""
        spread = ""
        if self.seconds:
            middle, most = statistics.median(self.seconds), max(self.seconds)
            spread = f"median {middle:.1f} s, most {most:.1f} s of {len(self.seconds)}"
        return "; ".join(part for part in (f"{self.name}: {spread}", *self.notes) if part)


@dataclass
class Bench:
    """A quiet cluster and its callers."""

    stage: Stage
    callers: Callers
    tell: Tell
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    def submit(self, epochs: int) -> SubmittedJob:
        """A job that trains for a while."""
        number = next(self._numbers)
        plan = LongJob(number, TENANTS[0], RECIPES[1], f"{TENANTS[0]}-0", epochs)
        job = self.callers.submit(plan, random.Random(1))
        assert job is not None
        return job

    def trainer_of(self, job: SubmittedJob) -> tuple[StagedWorker, psutil.Process]:
        """The worker that has the job, and the process that trains it."""
        pid = int(self.callers.clients[job.plan.tenant].training.get(job.name).worker.rpartition("/")[2])
        worker = next(one for one in self.stage.workers if pid in {process.pid for process in one.kept.tree()})
        pool_process = psutil.Process(pid)
        below = pool_process.children(recursive=True)
        trainers = [process for process in below if "modelyard_workers.trainer" in " ".join(process.cmdline())]
        # One waits for the next job; the other one has used the processor.
        return worker, max(trainers, key=lambda process: sum(process.cpu_times()[:2]))


@dataclass(frozen=True)
class LongJob(PlannedJob):
    """A job with as many epochs as are wanted."""

    epochs: int = _ENDLESS_EPOCHS

    def spec(self) -> TrainingSpec:
        """What is trained."""
        return spec_of(self.recipe, self.tenant, self.model, epochs=self.epochs)


@contextmanager
def bench(folder: Path, tell: Tell, *, mounts: bool, postgres: bool) -> Iterator[Bench]:
    """A quiet cluster with default settings."""
    options = StageOptions(DEFAULT, postgres=postgres, mounts=mounts)
    with running_stage(options, folder) as stage, Callers(stage) as callers:
        yield Bench(stage, callers, tell)


def measure_kills(bench: Bench, rounds: int) -> list[Bar]:
    """From SIGKILL to training again, of a worker and of a trainer; and how far a cancel is from being heard."""
    worker_bar, trainer_bar = Bar("worker killed → training again elsewhere"), Bar("trainer killed → training again")
    cancel_bar = Bar("cancel → the trainer has stopped")
    for _ in range(rounds):
        for bar, kill in ((trainer_bar, _kill_trainer), (worker_bar, _kill_worker)):
            # A new job each time: one that was lost before waits a little before it is tried again.
            job = bench.submit(_ENDLESS_EPOCHS)
            _until_trained_for(job, _BEFORE_A_BLOW_S)
            _killed(bench, job, bar, kill)
            _until_trained_for(job, 5.0)
            _cancelled(bench, job, cancel_bar)
    return [worker_bar, trainer_bar, cancel_bar]


def _killed(bench: Bench, job: SubmittedJob, bar: Bar, kill: Callable[[StagedWorker, psutil.Process], None]) -> None:
    worker, trainer = bench.trainer_of(job)
    attempt, began = job.events[-1].attempt, time.time()
    kill(worker, trainer)
    again = _wait_for(job, lambda event: event.attempt > attempt and _enters(event, State.RUNNING), _LONG_S)
    worker.kept.release()
    seconds = again.time.ToMicroseconds() / 1e6 - began
    bar.seconds.append(seconds)
    resumed = [event.attempt_start.checkpoint.step for event in job.events if event.HasField("attempt_start")]
    bench.tell(f"{bar.name}: {seconds:.1f} s; resumed at step {resumed[-1] if resumed else 0}")


def _kill_worker(worker: StagedWorker, _trainer: psutil.Process) -> None:
    worker.kept.hold()


def _kill_trainer(_worker: StagedWorker, trainer: psutil.Process) -> None:
    trainer.kill()


def _cancelled(bench: Bench, job: SubmittedJob, bar: Bar) -> None:
    _, trainer = bench.trainer_of(job)
    began = time.monotonic()
    answered = bench.callers.cancel(job)
    while trainer.is_running() and is_alive(trainer.pid):
        assert time.monotonic() - began < _LONG_S, "the trainer has not heard"
        time.sleep(0.05)
    bar.seconds.append(time.monotonic() - began)
    _wait_for(job, lambda event: _enters(event, State.CANCELLED), _LONG_S)
    asked = next(i for i, event in enumerate(job.events) if _enters(event, State.CANCELLING))
    saved = [event.checkpoint.step for event in job.events[asked:] if event.HasField("checkpoint")]
    bar.notes.append(f"checkpoint saved after it: {f'step {saved[-1]}' if saved else 'none'}")
    bench.tell(f"{bar.name}: {answered}, {bar.seconds[-1]:.1f} s; {bar.notes[-1]}")


def measure_outage(bench: Bench, minutes: float) -> Bar:
    """All gateways away for so long while a job trains: it must end well, in the same attempt."""
    bar = Bar(f"all gateways away for {minutes:g} minutes")
    pilot = bench.submit(_ENDLESS_EPOCHS)
    _until_trained_for(pilot, 20.0)
    speed = _epochs_per_second(pilot)
    bench.callers.cancel(pilot)
    _wait_for(pilot, lambda event: _enters(event, State.CANCELLED), _LONG_S)
    job = bench.submit(round(speed * (minutes * 60 * 1.5 + 60)))
    _until_trained_for(job, 10.0)
    _, trainer = bench.trainer_of(job)
    before = job.events[-1]
    bench.tell(
        f"{speed:.0f} epochs a second; the gateways go at event {before.sequence}, epoch {before.progress.epoch}"
    )
    for gateway in bench.stage.gateways:
        gateway.hold()
    time.sleep(minutes * 60)
    trained_on = is_alive(trainer.pid)
    for gateway in bench.stage.gateways:
        gateway.release()
    back = time.monotonic()
    bench.stage.keeper.wait_until_well([gateway.name for gateway in bench.stage.gateways])
    news = _wait_for(job, lambda event: event.sequence > before.sequence and event.HasField("progress"), _LONG_S)
    bar.seconds.append(time.monotonic() - back)
    bench.tell(f"the first news after the outage: event {news.sequence}, epoch {news.progress.epoch}")
    assert job.ended.wait(minutes * 60 * 3 + _LONG_S), "the job did not end"
    found = bench.callers.clients[job.plan.tenant].training.get(job.name)
    bar.notes += [
        f"trainer alive at the end of the outage: {trained_on}",
        f"{changes(job.events)[-1][1]} in attempt {found.attempt}, {found.model_version}",
        f"{len(job.events)} events, wrong: {list(faults_of(job.events)) or 'none'}",
    ]
    return bar


def _until_trained_for(job: SubmittedJob, seconds: float) -> None:
    """Returns when the newest attempt has been training for so long and has said so."""
    began: dict[int, TrainingJobEvent] = {}

    def has(event: TrainingJobEvent) -> bool:
        if _enters(event, State.RUNNING):
            began[event.attempt] = event
        first = began.get(event.attempt)
        is_newest = event.attempt == job.events[-1].attempt
        return event.HasField("progress") and first is not None and is_newest and _apart(first, event) >= seconds

    _wait_for(job, has, _LONG_S)


def _epochs_per_second(job: SubmittedJob) -> float:
    points = [event for event in job.events if event.HasField("progress")]
    return (points[-1].progress.epoch - points[0].progress.epoch) / _apart(points[0], points[-1])


def _apart(first: TrainingJobEvent, second: TrainingJobEvent) -> float:
    """Seconds."""
    return (second.time.ToMicroseconds() - first.time.ToMicroseconds()) / 1e6


def _wait_for(job: SubmittedJob, wanted: Callable[[TrainingJobEvent], bool], timeout_s: float) -> TrainingJobEvent:
    """The first event that is wanted, of the past or to come; raises AssertionError if the job ends or time is up."""
    deadline, seen, has_ended = time.monotonic() + timeout_s, 0, False
    while time.monotonic() < deadline and not has_ended:
        has_ended = job.ended.is_set()  # looked at before the events: the last ones count too
        events = job.events[seen:]
        for event in events:
            if wanted(event):
                return event
        seen += len(events)
        time.sleep(0.05)
    raise AssertionError(f"{job.name}: what was waited for did not happen; the newest events: {job.events[-3:]}")


def _enters(event: TrainingJobEvent, state: State) -> bool:
    return any(entered is state for _, entered in changes([event]))
