"""What each tenant uses of a pod.

Tenants come from tokens that the gateway signed, yet there may be any number of them: beyond a limit they are counted
together, so that nobody's tokens can fill the monitoring system.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from modelyard.core.metrics import Histogram, seconds_histogram

LIMIT = 100
ANONYMOUS, OTHERS = "_anonymous", "_others"
"""No tenant's name begins with an underscore."""


BUCKETS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0)
"""Fewer than a version has: there may be a hundred tenants."""


def _seconds() -> Histogram:
    return seconds_histogram(BUCKETS_S)


@dataclass(slots=True)
class TenantUse:
    """One tenant's predictions since the pod started."""

    requests: int = 0
    """Answered."""
    rows: int = 0
    failures: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """By Triton's reasons."""
    request: Histogram = field(default_factory=_seconds)
    """Of answered requests: from arrival to answer."""
    queue: Histogram = field(default_factory=_seconds)
    """Of answered requests: in the queue."""
    compute: Histogram = field(default_factory=_seconds)
    """Of answered requests: of the run of the graph that each was part of."""


_HISTOGRAMS: tuple[tuple[str, str, Callable[[TenantUse], Histogram]], ...] = (
    ("request", "Answered requests, by tenant: from arrival to answer.", attrgetter("request")),
    ("queue", "Answered requests, by tenant: time in the queue.", attrgetter("queue")),
    (
        "compute",
        "Answered requests, by tenant: time in the runtime of the run they were part of.",
        attrgetter("compute"),
    ),
)


class Tenants:
    """All tenants' use. The first ones are told by name, in the order in which they came."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._by_name: dict[str, TenantUse] = {}
        self._others = TenantUse()

    def of(self, tenant: str) -> TenantUse:
        """The use of one tenant; empty for callers without a token."""
        use = self._by_name.get(tenant)
        if use is None:
            if len(self._by_name) >= self._limit:
                return self._others
            use = self._by_name[tenant] = TenantUse()
        return use

    def tell(self) -> Iterable[Metric]:
        """The metric families."""
        named = [(name or ANONYMOUS, use) for name, use in (*self._by_name.items(), (OTHERS, self._others))]
        requests = CounterMetricFamily(
            "modelyard_inference_tenant_requests", "Predictions answered, by tenant.", labels=["tenant"]
        )
        rows = CounterMetricFamily("modelyard_inference_tenant_rows", "Rows of those.", labels=["tenant"])
        failures = CounterMetricFamily(
            "modelyard_inference_tenant_failures", "Predictions that failed, by tenant.", labels=["tenant", "reason"]
        )
        for label, use in named:
            requests.add_metric([label], use.requests)
            rows.add_metric([label], use.rows)
            for reason, count in use.failures.items():
                failures.add_metric([label, reason], count)
        return requests, rows, failures, *(_histogram(named, *histogram) for histogram in _HISTOGRAMS)


def _histogram(
    named: Iterable[tuple[str, TenantUse]], stage: str, documentation: str, histogram: Callable[[TenantUse], Histogram]
) -> Metric:
    family = HistogramMetricFamily(f"modelyard_inference_tenant_{stage}_seconds", documentation, labels=["tenant"])
    for label, use in named:
        histogram(use).tell(family, [label])
    return family
