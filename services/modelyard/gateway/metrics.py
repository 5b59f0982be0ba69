"""Jobs, queues, workers and doorbells as metrics: what is unfinished, asked of the database when somebody asks us, and
what has started and ended.

The database's figures are the same in every replica; starts and ends are counted in the replica that wrote them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from sqlalchemy import func, or_, select, text

from modelyard.core.database import Database, now_us
from modelyard.core.metrics import Histogram

from .attempts import EndCause
from .checkpoints import Checkpoint
from .claims import Claim
from .events import AttemptEnd, StateChange
from .jobs import TERMINAL, State
from .ledger import Edit
from .outbox import pending
from .presence import Worker, Workers, WorkerState
from .queues import QueueStatus, read_queues
from .scheduling import Queues
from .tables import jobs

WAIT_BUCKETS_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
_MICROSECONDS = 10**6

# Indexes cover all three conditions: a gateway with a million finished jobs answers as fast as a new one.
_UNFINISHED = or_(jobs.c.rung_time.is_not(None), jobs.c.lease_until.is_not(None), text("jobs.state = 'PAUSED'"))
_BY_STATE = (
    select(jobs.c.state, func.count(), now_us() - func.min(jobs.c.update_time))
    .where(_UNFINISHED)
    .group_by(jobs.c.state)
)


class JobMetrics:
    """Counts what this process has written and what it has given away (see `written`, `claimed`) and tells of all
    unfinished jobs."""

    def __init__(self, database: Database, queues: Queues, workers: Workers) -> None:
        self._database = database
        self._queues = queues
        self._workers = workers
        self._waits: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(WAIT_BUCKETS_S, scale=_MICROSECONDS))
        self._ended: Counter[tuple[str, str]] = Counter()
        self._attempts_ended: Counter[str] = Counter()
        self._checkpoints = self._removed = self._pauses = 0

    def written(self, edit: Edit) -> None:
        """This process has changed a job."""
        if edit.ended:
            self._ended[edit.job.state, edit.job.failure_reason or ""] += 1
        for event in edit.events:
            match event.payload:
                case AttemptEnd(cause):
                    self._attempts_ended[cause] += 1
                case Checkpoint():
                    self._checkpoints += 1
                case StateChange(State.PAUSED):
                    self._pauses += 1

    def removed(self) -> None:
        """This process has removed a checkpoint from the artifact store."""
        self._removed += 1

    def claimed(self, claim: Claim) -> None:
        """This process has given a job to a worker."""
        self._waits[claim.job.queue].observe(claim.waited_us)

    async def metrics(self) -> Iterable[Metric]:
        """See `modelyard.core.metrics.MetricsSource`. Raises what the database raises."""
        async with self._database.read() as connection:
            rows = (await connection.execute(_BY_STATE)).all()
            workers = await self._workers.read(connection)
            queues = await read_queues(connection, self._queues, workers)
        found = {state: (count, max(0, age_us) / 1e6) for state, count, age_us in rows}
        counts = GaugeMetricFamily("modelyard_gateway_jobs", "Unfinished jobs by state.", labels=["state"])
        for state in State:
            if state not in TERMINAL:
                counts.add_metric([state], found.get(state, (0, 0.0))[0])
        return (
            counts,
            GaugeMetricFamily(
                "modelyard_gateway_oldest_queued_seconds",
                "How long the job that waits longest for a worker has been queued; 0 if none is.",
                found.get(State.QUEUED, (0, 0.0))[1],
            ),
            GaugeMetricFamily(
                "modelyard_gateway_doorbells_pending",
                "Doorbells that the broker has not taken yet.",
                (await pending(self._database)).total(),
            ),
            *_tell_queues(queues),
            _tell_workers(queues, workers),
            self._tell_waits(),
            self._tell_ended(),
            self._tell_attempts_ended(),
            CounterMetricFamily("modelyard_gateway_pauses", "Pauses of jobs that have begun.", self._pauses),
            CounterMetricFamily(
                "modelyard_gateway_checkpoints_recorded", "Checkpoints that workers have reported.", self._checkpoints
            ),
            CounterMetricFamily(
                "modelyard_gateway_checkpoints_removed", "Checkpoints removed from the artifact store.", self._removed
            ),
        )

    def _tell_attempts_ended(self) -> Metric:
        family = CounterMetricFamily(
            "modelyard_gateway_attempts_ended", "Attempts at jobs that have ended, by cause.", labels=["cause"]
        )
        for cause in EndCause:
            family.add_metric([cause], self._attempts_ended[cause])
        return family

    def _tell_ended(self) -> Metric:
        family = CounterMetricFamily(
            "modelyard_gateway_jobs_ended",
            "Jobs that have ended, by state and, for failed ones, reason.",
            labels=["state", "reason"],
        )
        for (state, reason), count in self._ended.items():
            family.add_metric([state, reason], count)
        return family

    def _tell_waits(self) -> Metric:
        family = HistogramMetricFamily(
            "modelyard_gateway_queue_wait_seconds",
            "Jobs that this replica has given to a worker: how long they had waited, in one go.",
            labels=["queue"],
        )
        for queue, histogram in self._waits.items():
            histogram.tell(family, [queue])
        return family


def _tell_queues(queues: Sequence[QueueStatus]) -> Iterable[Metric]:
    waiting = GaugeMetricFamily("modelyard_gateway_queue_waiting", "Jobs that wait, by queue.", labels=["queue"])
    running = GaugeMetricFamily(
        "modelyard_gateway_queue_running", "Jobs that a worker holds, by queue.", labels=["queue"]
    )
    for queue in queues:
        waiting.add_metric([queue.name], queue.waiting)
        running.add_metric([queue.name], queue.running)
    return waiting, running


def _tell_workers(queues: Sequence[QueueStatus], workers: Sequence[Worker]) -> Metric:
    family = GaugeMetricFamily(
        "modelyard_gateway_workers",
        "Workers that reported lately, by queue and state; one that serves several queues counts in each.",
        labels=["queue", "state"],
    )
    counts = Counter((queue, worker.presence.state) for worker in workers for queue in worker.presence.queues)
    for queue in queues:
        for state in WorkerState:
            family.add_metric([queue.name, state], counts[queue.name, state])
    return family
