"""What a service counts and times: cheap enough for every call, told in Prometheus' terms when somebody asks.

Everything here is changed and read in the event loop only: no locks, and a few hundred nanoseconds an observation where
`prometheus_client.Histogram` takes a few microseconds. `exposition` serves it.

The names of the calls' metrics are those of the gRPC ecosystem (go-grpc-middleware, grpc-java), so that dashboards and
alerts made for any gRPC service fit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

NANOSECONDS = 10**9
"""In one second."""

CALL_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class MetricsSource(Protocol):
    """Something with metrics to tell."""

    async def metrics(self) -> Iterable[Metric]:
        """The metric families as they are now. Runs in the event loop; what needs time must let others run."""


class Histogram:
    """How often values fell below given bounds. Holds as many numbers as there are bounds, whatever it observes."""

    __slots__ = ("_bounds", "_counts", "_labels", "_scale", "_total")

    def __init__(self, bounds: Sequence[float], *, scale: int = 1) -> None:
        """`bounds`: ascending, in the unit that is told. `scale`: how many observed units make one of those."""
        self._scale = scale
        self._bounds = [round(bound * scale) for bound in bounds]
        self._labels = [*(str(float(bound)) for bound in bounds), "+Inf"]
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0

    def observe(self, value: int, times: int = 1) -> None:
        """Counts a value that was seen so many times."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._total += value * times

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self._counts)

    def tell(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Adds this histogram to a family under these label values."""
        below, buckets = 0, []
        for label, count in zip(self._labels, self._counts, strict=True):
            below += count
            buckets.append((label, below))
        family.add_metric(labels, buckets, self._total / self._scale)


def seconds_histogram(bounds: Sequence[float]) -> Histogram:
    """A histogram that observes nanoseconds and tells seconds."""
    return Histogram(bounds, scale=NANOSECONDS)


@dataclass(slots=True)
class MethodMetrics:
    """The calls of one method, on whatever transport they come."""

    service: str
    method: str
    kind: str
    """`unary`, `client_stream`, `server_stream` or `bidi_stream`."""
    started: int = 0
    codes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Ended calls by status code."""
    duration: Histogram = field(default_factory=lambda: seconds_histogram(CALL_BUCKETS_S))

    def begin(self, calls: int = 1) -> None:
        """A call has come, or several together. `end` must follow."""
        self.started += calls

    def end(self, code: str, ns: int, calls: int = 1) -> None:
        """They have ended with this status code (`OK`, `NOT_FOUND`, …), so many nanoseconds after they came."""
        self.codes[code] += calls
        self.duration.observe(ns, calls)


class CallMetrics:
    """All calls that a service answers, by method and status code."""

    def __init__(self) -> None:
        self._methods: dict[str, MethodMetrics] = {}

    def of(self, path: str, kind: str = "unary") -> MethodMetrics:
        """The metrics of the method with this path, as in `/package.Service/Method`.

        Ask only for methods that exist: whatever is asked for once is told for ever.
        """
        found = self._methods.get(path)
        if found is None:
            service, _, method = path.removeprefix("/").rpartition("/")
            found = self._methods[path] = MethodMetrics(service, method, kind)
        return found

    async def metrics(self) -> Iterable[Metric]:
        """See `MetricsSource`."""
        labels = ["grpc_type", "grpc_service", "grpc_method"]
        started = CounterMetricFamily("grpc_server_started", "Calls that have begun.", labels=labels)
        handled = CounterMetricFamily(
            "grpc_server_handled", "Calls that have ended, by status code.", labels=[*labels, "grpc_code"]
        )
        handling = HistogramMetricFamily(
            "grpc_server_handling_seconds", "From a call's beginning to its end; streams included.", labels=labels
        )
        for method in self._methods.values():
            names = [method.kind, method.service, method.method]
            started.add_metric(names, method.started)
            for code, count in method.codes.items():
                handled.add_metric([*names, code], count)
            method.duration.tell(handling, names)
        return started, handled, handling


class ComputedSource:
    """A source that is one function, for figures that are looked up when somebody asks."""

    def __init__(self, tell: Callable[[], Iterable[Metric]]) -> None:
        self._tell = tell

    async def metrics(self) -> Iterable[Metric]:
        """See `MetricsSource`."""
        return self._tell()
