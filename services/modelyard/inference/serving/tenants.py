"""What each tenant uses of a pod.

Tenants come from tokens that the gateway signed, yet there may be any number of them: beyond a limit they are counted
together, so that nobody's tokens can fill the monitoring system.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, Metric

LIMIT = 100
ANONYMOUS, OTHERS = "_anonymous", "_others"
"""No tenant's name begins with an underscore."""


@dataclass(slots=True)
class TenantUse:
    """One tenant's predictions since the pod started."""

    requests: int = 0
    """Answered."""
    rows: int = 0
    failures: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """By Triton's reasons."""


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
        requests = CounterMetricFamily(
            "modelyard_inference_tenant_requests", "Predictions answered, by tenant.", labels=["tenant"]
        )
        rows = CounterMetricFamily("modelyard_inference_tenant_rows", "Rows of those.", labels=["tenant"])
        failures = CounterMetricFamily(
            "modelyard_inference_tenant_failures", "Predictions that failed, by tenant.", labels=["tenant", "reason"]
        )
        for name, use in (*self._by_name.items(), (OTHERS, self._others)):
            label = name or ANONYMOUS
            requests.add_metric([label], use.requests)
            rows.add_metric([label], use.rows)
            for reason, count in use.failures.items():
                failures.add_metric([label, reason], count)
        return requests, rows, failures
