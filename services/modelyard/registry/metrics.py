"""What the registry stores and who watches it, as metrics. The database's figures are the same in every replica."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import func, select

from modelyard.core.database import Database

from .liveness import is_live
from .tables import pods, revision, uploads
from .watching import Watch

_UPLOADS = select(func.count()).select_from(uploads).where(uploads.c.complete.is_(False))
_PODS = select(func.count()).select_from(pods).where(is_live())
_REVISION = select(revision.c.value)


class RegistryMetrics:
    """Asks the database when somebody asks us."""

    def __init__(self, database: Database, watch: Watch) -> None:
        self._database = database
        self._watch = watch

    async def metrics(self) -> Iterable[Metric]:
        """See `modelyard.core.metrics.MetricsSource`. Raises what the database raises."""
        async with self._database.read() as connection:
            open_uploads = (await connection.execute(_UPLOADS)).scalar_one()
            live_pods = (await connection.execute(_PODS)).scalar_one()
            newest = (await connection.execute(_REVISION)).scalar_one()
        return (
            GaugeMetricFamily("modelyard_registry_uploads_open", "Uploads that are not complete.", open_uploads),
            GaugeMetricFamily("modelyard_registry_pods", "Pods that report what they serve.", live_pods),
            GaugeMetricFamily(
                "modelyard_registry_watchers", "Streams of this replica that pods follow.", self._watch.watchers
            ),
            GaugeMetricFamily("modelyard_registry_revision", "Changes of what should be served, ever.", newest),
            GaugeMetricFamily(
                "modelyard_registry_revision_lag",
                "Changes in the database that this replica has not told its watchers of yet.",
                max(0, newest - self._watch.revision),
            ),
        )
