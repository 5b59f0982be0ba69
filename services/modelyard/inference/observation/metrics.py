"""The pod's predictions as metrics, counters under Triton's names and histograms of our own, and as spans.

What Triton counts is in each version's statistics already and is read from there when somebody asks. Only the spread of
times and sizes and the tenants' use are added up here, once per request. What belongs to a version goes with it.

Triton's names, labels and meanings: docs/user_guide/metrics.md of triton-inference-server/server, release 24.10 (2.51).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from modelyard.core.metrics import Histogram
from modelyard.core.trace_context import Trace, current
from modelyard.inference.calls import PredictionCall
from modelyard.inference.serving.table import ServingTable
from modelyard.inference.serving.tenants import Tenants
from modelyard.inference.serving.versions import LoadedVersion

from .failures import failure_reason
from .statistics import Execution

_LABELS = ["model", "version"]

_COUNTERS: tuple[tuple[str, str, Callable[[LoadedVersion], float]], ...] = (
    (
        "nv_inference_request_success",
        "Number of successful inference requests, all batch sizes",
        attrgetter("statistics.success.count"),
    ),
    (
        "nv_inference_count",
        "Number of inferences performed; a batch of n counts as n",
        attrgetter("statistics.row_count"),
    ),
    (
        "nv_inference_exec_count",
        "Number of model executions performed",
        attrgetter("statistics.execution_count"),
    ),
    (
        "nv_inference_request_duration_us",
        "Cumulative inference request duration in microseconds",
        lambda version: version.statistics.success.ns // 1000,
    ),
    (
        "nv_inference_queue_duration_us",
        "Cumulative inference queuing duration in microseconds",
        lambda version: version.statistics.queue_ns // 1000,
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Cumulative compute input duration in microseconds",
        lambda version: version.statistics.input_ns // 1000,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Cumulative compute inference duration in microseconds",
        lambda version: version.statistics.infer_ns // 1000,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Cumulative inference compute output duration in microseconds",
        lambda version: version.statistics.output_ns // 1000,
    ),
)

_GAUGES: tuple[tuple[str, str, Callable[[LoadedVersion], float]], ...] = (
    (
        "nv_inference_pending_request_count",
        "Instantaneous number of pending requests awaiting execution per-model.",
        attrgetter("waiting"),
    ),
    (
        "nv_model_load_duration_secs",
        "Model load time in seconds",
        lambda version: version.measurements.load_ns / 1e9,
    ),
)

_HISTOGRAMS: tuple[tuple[str, str, Callable[[LoadedVersion], Histogram]], ...] = (
    (
        "modelyard_inference_request_seconds",
        "Answered requests: from arrival to answer.",
        attrgetter("measurements.request"),
    ),
    (
        "modelyard_inference_queue_seconds",
        "Answered requests: time in the queue.",
        attrgetter("measurements.queue"),
    ),
    (
        "modelyard_inference_compute_seconds",
        "Runs of the graph: time in the runtime.",
        attrgetter("measurements.compute"),
    ),
    (
        "modelyard_inference_batch_rows",
        "Runs of the graph: rows, of all their requests together.",
        attrgetter("measurements.rows"),
    ),
)


class PredictionMetrics:
    """Hears of every prediction (see `observing.PredictionObserver`) and tells what came of them."""

    def __init__(self, table: ServingTable) -> None:
        self._table = table
        self._tenants = Tenants()

    def answered(
        self, version: LoadedVersion, call: PredictionCall, rows: int, total_ns: int, queue_ns: int, run: Execution,
        requests: int = 1,
    ) -> None:  # fmt: skip
        """See `PredictionObserver`."""
        measurements = version.measurements
        measurements.request.observe(total_ns, requests)
        measurements.queue.observe(queue_ns, requests)
        use = self._tenants.of(call.caller.tenant)
        use.requests += requests
        use.rows += rows * requests
        use.request.observe(total_ns, requests)
        use.queue.observe(queue_ns, requests)
        use.compute.observe(run.infer_ns, requests)
        trace = current()
        if trace is not None and trace.recorded:
            _trace_stages(trace, version, rows, queue_ns, run)

    def failed(self, version: LoadedVersion, call: PredictionCall, error: BaseException, _total_ns: int) -> None:
        """See `PredictionObserver`."""
        reason = failure_reason(error)
        version.measurements.failures[reason] += 1
        self._tenants.of(call.caller.tenant).failures[reason] += 1

    def executed(self, version: LoadedVersion, run: Execution) -> None:
        """See `PredictionObserver`."""
        version.measurements.compute.observe(run.infer_ns)
        version.measurements.rows.observe(run.rows)

    async def metrics(self) -> Iterable[Metric]:
        """See `modelyard.core.metrics.MetricsSource`."""
        versions = list(self._versions())
        return [
            *(_family(CounterMetricFamily, versions, *counter) for counter in _COUNTERS),
            _failures(versions),
            *(_family(GaugeMetricFamily, versions, *gauge) for gauge in _GAUGES),
            *(_histogram(versions, *histogram) for histogram in _HISTOGRAMS),
            *self._tenants.tell(),
        ]

    def _versions(self) -> Iterator[tuple[list[str], LoadedVersion]]:
        """Every loaded version with its labels' values."""
        for entry in self._table.models.values():
            for version in entry.loaded.values():
                yield [entry.name, version.number_text], version


def _trace_stages(trace: Trace, version: LoadedVersion, rows: int, queue_ns: int, run: Execution) -> None:
    """The prediction's stages as parts of its call, counted back from its end, which is now."""
    end = time.time_ns()
    computed = end - run.output_ns
    begun = computed - run.infer_ns - run.input_ns
    trace.note(model=version.wanted.model, version=version.number_text, rows=rows)
    trace.child("queue", begun - queue_ns, begun)
    trace.child("compute", begun, computed, batch_requests=run.requests, batch_rows=run.rows)
    trace.child("output", computed, end)


def _family(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    versions: Iterable[tuple[list[str], LoadedVersion]],
    name: str,
    documentation: str,
    value: Callable[[LoadedVersion], float],
) -> Metric:
    """One number of each version. Triton's counters have no `_total` behind their names, so samples are added bare."""
    family = kind(name, documentation, labels=_LABELS)
    for labels, version in versions:
        family.add_sample(name, dict(zip(_LABELS, labels, strict=True)), value(version))
    return family


def _failures(versions: Iterable[tuple[list[str], LoadedVersion]]) -> Metric:
    name = "nv_inference_request_failure"
    family = CounterMetricFamily(name, "Number of failed inference requests, all batch sizes", labels=_LABELS)
    for (model, number), version in versions:
        for reason, count in version.measurements.failures.items():
            family.add_sample(name, {"model": model, "reason": reason, "version": number}, count)
    return family


def _histogram(
    versions: Iterable[tuple[list[str], LoadedVersion]],
    name: str,
    documentation: str,
    histogram: Callable[[LoadedVersion], Histogram],
) -> Metric:
    family = HistogramMetricFamily(name, documentation, labels=_LABELS)
    for labels, version in versions:
        histogram(version).tell(family, labels)
    return family
