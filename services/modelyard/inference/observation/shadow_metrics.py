"""What shadow versions do, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from modelyard.inference.serving.shadowing import Shadows

_LABELS = ["model", "alias", "version", "shadow_version"]
_COUNTERS = {
    "compared": "Requests that the shadow version answered too.",
    "differing": "Compared requests whose answers differ by more than rounding.",
    "rows": "Rows in compared answers.",
    "class_mismatches": "Rows that name another class.",
    "failed": "Requests that the shadow version did not answer.",
    "dropped": "Requests that the shadow version was not given, because callers were waiting.",
}
_GAUGES = {
    "max_absolute_difference": "Largest difference between two numbers of compared answers.",
    "max_relative_difference": "Largest difference between two numbers of compared answers, as a part of the caller's.",
}


class ShadowMetrics:
    """Tells what the pod's shadows have counted since it started."""

    def __init__(self, shadows: Shadows) -> None:
        self._shadows = shadows

    async def metrics(self) -> Iterable[Metric]:
        """See `modelyard.core.metrics.MetricsSource`."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
            name: CounterMetricFamily(f"modelyard_shadow_{name}", text, labels=_LABELS)
            for name, text in _COUNTERS.items()
        }
        families |= {
            name: GaugeMetricFamily(f"modelyard_shadow_{name}", text, labels=_LABELS) for name, text in _GAUGES.items()
        }
        for pair, counts in self._shadows.counts.items():
            labels = [pair.model, pair.alias, str(pair.version), str(pair.shadow_version)]
            for name, family in families.items():
                family.add_metric(labels, getattr(counts, name))
        return families.values()
