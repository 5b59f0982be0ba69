"""Jobs and doorbells as metrics: what is unfinished, asked of the database when somebody asks us, and what has ended.

The database's figures are the same in every replica; what has ended is counted in the replica that ended it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import func, or_, select

from modelyard.core.database import Database, now_us

from .jobs import TERMINAL, Job, State
from .outbox import pending
from .tables import jobs

# Indexes cover both conditions: a gateway with a million finished jobs answers as fast as a new one.
_UNFINISHED = or_(jobs.c.rung_time.is_not(None), jobs.c.lease_until.is_not(None))
_BY_STATE = (
    select(jobs.c.state, func.count(), now_us() - func.min(jobs.c.update_time))
    .where(_UNFINISHED)
    .group_by(jobs.c.state)
)


class JobMetrics:
    """Counts jobs that end (see `ended`) and tells of all others."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ended: Counter[tuple[str, str]] = Counter()

    def ended(self, job: Job) -> None:
        """This process has written that the job is over."""
        self._ended[job.state, job.failure_reason or ""] += 1

    async def metrics(self) -> Iterable[Metric]:
        """See `modelyard.core.metrics.MetricsSource`. Raises what the database raises."""
        async with self._database.read() as connection:
            rows = (await connection.execute(_BY_STATE)).all()
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
                await pending(self._database),
            ),
            self._tell_ended(),
        )

    def _tell_ended(self) -> Metric:
        family = CounterMetricFamily(
            "modelyard_gateway_jobs_ended",
            "Jobs that have ended, by state and, for failed ones, reason.",
            labels=["state", "reason"],
        )
        for (state, reason), count in self._ended.items():
            family.add_metric([state, reason], count)
        return family
