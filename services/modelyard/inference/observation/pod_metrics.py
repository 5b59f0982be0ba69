"""What a pod holds and how it came by it: versions, loads, switches, its link to the registry, its disk cache."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from modelyard.core.metrics import NANOSECONDS, seconds_histogram
from modelyard.inference.loading.artifacts import ArtifactCache
from modelyard.inference.serving.desired import WantedVersion
from modelyard.inference.serving.memory import MemoryBudget
from modelyard.inference.serving.readiness import Readiness
from modelyard.inference.serving.table import ServingTable
from modelyard.inference.serving.versions import LoadedVersion
from modelyard.inference.serving.watch import RegistryWatch

LOAD_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class LifecycleMetrics:
    """Hears of loads and switches (see `lifecycle.LifecycleObserver`) and tells what is loaded."""

    def __init__(self, table: ServingTable) -> None:
        self._table = table
        self._loads = seconds_histogram(LOAD_BUCKETS_S)
        self._failures: Counter[str] = Counter()
        self._switches: Counter[str] = Counter()

    def loaded(self, version: LoadedVersion, seconds: float) -> None:
        """See `LifecycleObserver`."""
        ns = round(seconds * NANOSECONDS)
        version.measurements.load_ns = ns
        self._loads.observe(ns)

    def load_failed(self, version: WantedVersion) -> None:
        """See `LifecycleObserver`."""
        self._failures[version.model] += 1

    def switched(self, model: str) -> None:
        """See `LifecycleObserver`."""
        self._switches[model] += 1

    async def metrics(self) -> Iterable[Metric]:
        """See `modelyard.core.metrics.MetricsSource`."""
        loads = HistogramMetricFamily(
            "modelyard_pod_version_load_seconds", "Versions loaded: download, check, session, warm-up.", labels=[]
        )
        self._loads.tell(loads, [])
        failures = CounterMetricFamily(
            "modelyard_pod_version_load_failures", "Tries to load a version that failed.", labels=["model"]
        )
        switches = CounterMetricFamily(
            "modelyard_pod_alias_switches", "Times that another version began to answer for an alias.", labels=["model"]
        )
        for model in self._table.models:
            failures.add_metric([model], self._failures[model])
            switches.add_metric([model], self._switches[model])
        self._forget()
        return self._versions(), loads, failures, switches

    def _versions(self) -> Metric:
        entries = self._table.models.values()
        states = {
            "loaded": sum(len(entry.loaded) for entry in entries),
            "loading": sum(
                1 for entry in entries for version in entry.missing() if version.number not in entry.failures
            ),
            "broken": sum(len(entry.failures) for entry in entries),
            "parked": sum(len(entry.wanted.versions) for entry in entries if entry.parked and entry.wanted is not None),
            "retiring": sum(len(entry.retiring) for entry in entries),
        }
        family = GaugeMetricFamily("modelyard_pod_versions", "Versions by state.", labels=["state"])
        for state, count in states.items():
            family.add_metric([state], count)
        return family

    def _forget(self) -> None:
        """Drops models that are gone: names come and go for as long as the pod lives."""
        for counter in (self._failures, self._switches):
            for model in [model for model in counter if model not in self._table.models]:
                del counter[model]


class LinkMetrics:
    """Whether the pod should get calls, and whether it hears its registry."""

    def __init__(self, readiness: Readiness, watch: RegistryWatch) -> None:
        self._readiness = readiness
        self._watch = watch

    async def metrics(self) -> Iterable[Metric]:
        """See `modelyard.core.metrics.MetricsSource`."""
        return (
            GaugeMetricFamily("modelyard_pod_ready", "1 if the pod should be sent requests.", self._readiness.ready),
            GaugeMetricFamily(
                "modelyard_pod_registry_connected", "1 while the registry is heard.", self._watch.connected
            ),
            GaugeMetricFamily(
                "modelyard_pod_desired_revision", "The registry's revision that the pod knows.", self._watch.revision
            ),
        )


class MemoryMetrics:
    """The memory that loaded versions take together."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget

    async def metrics(self) -> Iterable[Metric]:
        """See `modelyard.core.metrics.MetricsSource`."""
        limit = GaugeMetricFamily("modelyard_pod_memory_limit_bytes", "The most they may take; 0: no limit.")
        limit.add_metric([], self._budget.limit_bytes)
        used = GaugeMetricFamily("modelyard_pod_memory_bytes", "Memory of versions, with those being loaded or freed.")
        used.add_metric([], self._budget.used_bytes)
        return used, limit


class CacheMetrics:
    """The disk cache of artifacts."""

    def __init__(self, artifacts: ArtifactCache, limit_bytes: int) -> None:
        self._artifacts = artifacts
        self._limit_bytes = limit_bytes

    async def metrics(self) -> Iterable[Metric]:
        """See `modelyard.core.metrics.MetricsSource`."""
        size_bytes = await asyncio.to_thread(self._artifacts.size_bytes)
        return (
            GaugeMetricFamily("modelyard_pod_cache_bytes", "Artifacts on disk.", size_bytes),
            GaugeMetricFamily("modelyard_pod_cache_limit_bytes", "The most of them.", self._limit_bytes),
        )
