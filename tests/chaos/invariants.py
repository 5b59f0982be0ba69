"""What must be true when everything is over, asked from outside: by the API, in the databases, and of the processes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.v1.model_pb2 import ModelVersion
from modelyard.v1.training_job_pb2 import TrainingAttempt, TrainingJob
from support.waiting import eventually_sync

from . import rows
from .callers import Callers, SubmittedJob
from .faults import Strike
from .histories import faults_of
from .stage import Stage

State = TrainingJob.State
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One promise, and what speaks against it."""

    promise: str
    objections: tuple[str, ...]
    detail: str = ""
    """With what was it compared, in figures."""

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.objections


class Judgement:
    """Looks at a cluster that has come to rest."""

    def __init__(self, stage: Stage, callers: Callers, strikes: Sequence[Strike]) -> None:
        self._stage = stage
        self._callers = callers
        self._strikes = strikes
        self.final: dict[str, TrainingJob] = {}
        """Every job by name, as it is at the end."""
        self.versions: list[ModelVersion] = []
        self.attempts: list[TrainingAttempt] = []

    def findings(self) -> list[Finding]:
        """All promises, kept or broken."""
        self._fetch()
        return [
            self._finding("every job is in its right end", self._wrong_ends(), f"{len(self._callers.jobs)} jobs"),
            self._finding("no submission was lost or doubled", self._wrong_count()),
            self._finding("no version was published twice", self._doubled(), f"{len(self.versions)} versions"),
            self._finding("no version was lost", self._lost()),
            self._finding("equal jobs made equal bytes, however often they were hit", self._unequal()),
            self._finding("every watcher got every event once, in legal steps, of current attempts", self._histories()),
            self._finding("watchers saw what the database has", self._unlike_the_database()),
            self._finding(
                "every attempt is on record with its end", self._wrong_attempts(), f"{len(self.attempts)} attempts"
            ),
            self._finding("attempts of living workers outlived the gateways", self._promises()),
            self._finding("nothing is left on the rows of ended jobs", self._leftover_rows()),
            self._finding("nothing is left on the workers' disks", self._leftover_folders()),
            self._finding("no checkpoint is left in the artifact store", self._leftover_checkpoints()),
        ]

    def _finding(self, promise: str, objections: Iterable[str], detail: str = "") -> Finding:
        return Finding(promise, tuple(objections), detail)

    def _fetch(self) -> None:
        with self._stage.client("default", "admin") as everybody:
            self.final = {job.name: job for job in everybody.training.list()}
            for model in everybody.models.list():
                self.versions += everybody.models.versions(model.name.rpartition("/")[2])

        self._attempts = {job.name: self._callers.attempts(job) for job in self._callers.jobs}
        self.attempts = [attempt for attempts in self._attempts.values() for attempt in attempts]

    def _wrong_ends(self) -> Iterator[str]:
        for job in self._callers.jobs:
            found = self.final.get(job.name)
            if found is not None and not _is_right(job, found):
                yield (
                    f"{job.name} ({job.plan.recipe.name}, cancel asked: {job.cancel_asked}) is "
                    f"{State.Name(found.state)} after {found.attempt} attempts: {found.failure_message}"
                )

    def _wrong_count(self) -> Iterator[str]:
        submitted = Counter(job.name for job in self._callers.jobs)
        yield from (f"{name} was answered to several submissions" for name, times in submitted.items() if times > 1)
        yield from (f"{name} is gone" for name in submitted.keys() - self.final.keys())
        yield from (f"nobody submitted {name}" for name in self.final.keys() - submitted.keys())

    def _doubled(self) -> Iterator[str]:
        published = Counter(version.training_job for version in self.versions)
        yield from (f"{job} made {times} versions" for job, times in published.items() if times > 1)
        successes = {name for name, job in self.final.items() if job.state == State.STATE_SUCCEEDED}
        yield from (f"{job} did not succeed and has a version" for job in published.keys() - successes)

    def _lost(self) -> Iterator[str]:
        known = {(version.training_job, version.name) for version in self.versions}
        for name, job in self.final.items():
            if job.state == State.STATE_SUCCEEDED and (name, job.model_version) not in known:
                yield f"{name} says it made {job.model_version or 'nothing'}, which the registry does not have"

    def _unequal(self) -> Iterator[str]:
        digests: dict[str, Counter[str]] = defaultdict(Counter)
        recipes = {job.name: job.plan.recipe.name for job in self._callers.jobs}
        for version in self.versions:
            digests[recipes.get(version.training_job, "?")][version.digest] += 1
        for recipe, found in digests.items():
            if len(found) > 1:
                yield f"jobs of the recipe {recipe} made {dict(found)}"

    def _histories(self) -> Iterator[str]:
        for job in self._callers.jobs:
            yield from (f"{job.name}: {fault}" for fault in faults_of(job.events))

    def _unlike_the_database(self) -> Iterator[str]:
        database = self._stage.gateway_database
        counts = rows.pairs(database, "SELECT job_id, count(*) FROM job_events GROUP BY job_id")
        last = rows.pairs(database, "SELECT id, last_sequence FROM jobs")
        for job in self._callers.jobs:
            if not len(job.events) == counts.get(job.id) == last.get(job.id):
                yield f"{job.name}: {len(job.events)} seen, {counts.get(job.id)} events, row at {last.get(job.id)}"
                continue
            again = list(self._callers.clients[job.plan.tenant].training.watch(job.name, history_only=True))
            if again != job.events:
                yield f"{job.name}: replayed, the history is another"

    def _wrong_attempts(self) -> Iterator[str]:
        for name, attempts in self._attempts.items():
            numbers = [attempt.attempt for attempt in reversed(attempts)]
            if numbers != list(range(1, self.final[name].attempt + 1)):
                yield f"{name}: attempts {numbers}, the job says {self.final[name].attempt}"
            open_ones = [attempt.attempt for attempt in attempts if not attempt.end_cause]
            if open_ones:
                yield f"{name}: attempts {open_ones} have no end"

    def _promises(self) -> Iterator[str]:
        return (strike.broken_promise for strike in self._strikes if strike.broken_promise)

    def _leftover_rows(self) -> Iterator[str]:
        database = self._stage.gateway_database
        ended = "state IN ('SUCCEEDED', 'FAILED', 'CANCELLED')"
        for row in rows.select(database, f"SELECT id FROM jobs WHERE {ended} AND lease_until IS NOT NULL"):
            yield f"{row[0]} has ended and has a lease"
        try:
            eventually_sync(lambda: not rows.select(database, "SELECT job_id FROM doorbells"), timeout=30)
        except AssertionError as error:
            yield f"doorbells that were never rung: {error}"

    def _leftover_checkpoints(self) -> Iterator[str]:
        saved = {event.checkpoint.digest for job in self._callers.jobs for event in job.events} - {""}

        def left() -> set[str]:
            return saved & {row[0] for row in rows.select(self._stage.registry_database, "SELECT digest FROM blobs")}

        try:
            eventually_sync(lambda: not left(), timeout=60, interval=1.0)
        except AssertionError:
            yield from (f"{digest} of {len(saved)}" for digest in left())

    def _leftover_folders(self) -> Iterator[str]:
        for worker in self._stage.workers:
            left = [path.name for path in _attempt_folders(worker.work_dir)]
            yield from (f"{worker.name}: {name}" for name in left)


def _attempt_folders(work_dir: Path) -> list[Path]:
    return sorted((work_dir / "attempts").glob("*"))


def _is_right(job: SubmittedJob, found: TrainingJob) -> bool:
    if found.state == State.STATE_CANCELLED:
        return job.cancel_asked
    if job.cancel_accepted:
        return False
    return found.state == job.plan.recipe.state and found.failure_reason == job.plan.recipe.reason


def shown(objections: Sequence[str]) -> list[str]:
    """As many as a reader wants to see."""
    more = len(objections) - _SHOWN
    return [*objections[:_SHOWN], *([f"… and {more} more"] if more > 0 else [])]
