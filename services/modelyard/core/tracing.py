"""Spans of calls, sent to an OpenTelemetry collector, for the calls that are sampled.

Off unless OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) is set and the extra `tracing` is installed. The exporter
and its batches read the standard variables: OTEL_EXPORTER_OTLP_*, OTEL_BSP_*, OTEL_SERVICE_NAME,
OTEL_RESOURCE_ATTRIBUTES.

Who samples: a caller that sends `traceparent` has decided; of the other calls it is a part that OTEL_TRACES_SAMPLER and
OTEL_TRACES_SAMPLER_ARG set (by default, as the standard has it, all of them: set it lower for a busy pod), or the
protocol's TraceSetting. A call that is not sampled costs a dictionary look-up.

Knows no transport: every lane calls `begin` with a call's method and metadata, enters what it answers (see
`trace_context`), and ends it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .logs import get_logger
from .trace_context import TRACEPARENT, Parent, Trace

if TYPE_CHECKING:  # the packages are an extra
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

MOST_PER_SECOND = 200
"""Calls that are recorded in one process. Callers can ask for a trace of every call; this bounds what that costs."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Codes that are the server's fault, by OpenTelemetry's conventions for gRPC."""

log = get_logger()


class Sampling:
    """Which calls are recorded, of those whose caller has not decided it."""

    def __init__(self) -> None:
        self.ratio = 0.0
        """The part of them, 0 to 1. May be set at any time; without effect while nothing is recorded."""
        self.tracer: Tracer | None = None
        self._second = 0
        self._recorded = 0

    @property
    def available(self) -> bool:
        """Whether there is anywhere to send spans to."""
        return self.tracer is not None

    def chosen(self) -> bool:
        """Whether to record the next call without a trace of its own."""
        return self.ratio > 0 and random.random() < self.ratio  # noqa: S311 - nobody gains by guessing it

    def admits(self) -> bool:
        """Whether one more may be recorded in this second."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._recorded = second, 0
        self._recorded += 1
        return self._recorded <= MOST_PER_SECOND


SAMPLING = Sampling()
"""The process's."""


def begin(method: str, metadata: Mapping[str, str | bytes]) -> Trace | None:
    """The trace of a call, with a span of ours if it is sampled; None if the call belongs to no trace.

    `method`: `/package.Service/Method`. `metadata`: by key in lower case.
    """
    if metadata.get(TRACEPARENT) is None:
        if SAMPLING.tracer is None or not SAMPLING.chosen() or not SAMPLING.admits():
            return None
        return _RecordedTrace(SAMPLING.tracer, method, None)
    parent = Parent.read(metadata)
    if parent is None:
        return None
    if SAMPLING.tracer is not None and parent.sampled and SAMPLING.admits():
        return _RecordedTrace(SAMPLING.tracer, method, parent)
    return Trace(parent.trace_id, parent.span_id, sampled=parent.sampled, state=parent.state)


class _RecordedTrace(Trace):
    """A call's place in a trace, with a span of ours."""

    __slots__ = ("_context", "_span", "_tracer")

    def __init__(self, tracer: Tracer, method: str, parent: Parent | None) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context

        service, _, name = method.removeprefix("/").rpartition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        self._tracer = tracer
        self._span: Span = tracer.start_span(method.removeprefix("/"), _context_of(parent), SpanKind.SERVER, attributes)
        self._context = set_span_in_context(self._span)
        own = self._span.get_span_context()
        super().__init__(
            f"{own.trace_id:032x}", f"{own.span_id:016x}", sampled=True, state=parent.state if parent else ""
        )

    @property
    def recorded(self) -> bool:
        return True

    def note(self, **attributes: str | float) -> None:
        for name, value in attributes.items():
            self._span.set_attribute(_dotted(name), value)

    def child(self, name: str, start_ns: int, end_ns: int, **attributes: str | float) -> None:
        span = self._tracer.start_span(
            name, self._context, start_time=start_ns, attributes={_dotted(key): attributes[key] for key in attributes}
        )
        span.end(end_ns)

    def end(self, code: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("rpc.response.status_code", code)
        if code in _FAULTS:
            self._span.set_status(StatusCode.ERROR, code)
        self._span.end()


def _dotted(name: str) -> str:
    """An attribute's name, as keyword arguments can spell it."""
    return "modelyard." + name


def _context_of(parent: Parent | None) -> Any:
    """The caller's span as OpenTelemetry has it; a context without one begins a trace."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

    if parent is None:
        return Context()
    span = SpanContext(
        int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED), trace_state=TraceState.from_header([parent.state]),
    )  # fmt: skip
    return set_span_in_context(NonRecordingSpan(span), Context())


@contextmanager
def recording(provider: TracerProvider, ratio: float = 0.0) -> Iterator[None]:
    """Records spans with this provider for the length of a `with`. `ratio`: see `Sampling`."""
    SAMPLING.tracer, SAMPLING.ratio = provider.get_tracer("modelyard"), ratio
    try:
        yield
    finally:
        SAMPLING.tracer, SAMPLING.ratio = None, 0.0
        provider.shutdown()


@contextmanager
def exporting(service: str) -> Iterator[None]:
    """Sends spans to where the environment says, for the length of a `with`; what is left at the end is sent then.

    `service`: the program's name, unless OTEL_SERVICE_NAME is set. Raises ValueError for a sampler it does not know.
    """
    if not _wanted(os.environ):
        yield
        return
    try:
        provider = _provider(service)
    except ModuleNotFoundError as error:
        log.warning("no spans are sent: install modelyard[tracing]", missing=error.name)
        yield
        return
    protocol = next((value for name in _PROTOCOLS if (value := os.environ.get(name))), "grpc")
    if protocol != "grpc":
        log.warning("spans are sent by gRPC, the one protocol there is here", asked_for=protocol)
    ratio = root_ratio(os.environ)
    log.info("spans are sent", ratio=ratio)
    with recording(provider, ratio):
        yield


def _wanted(environment: Mapping[str, str]) -> bool:
    """Whether the environment asks for spans."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(environment.get(name) for name in _ENDPOINTS)


def root_ratio(environment: Mapping[str, str]) -> float:
    """The part of calls without a caller's decision that OTEL_TRACES_SAMPLER and its argument choose.

    Raises ValueError for what it does not know.
    """
    sampler = environment.get("OTEL_TRACES_SAMPLER", "").removeprefix("parentbased_") or "always_on"
    fixed = {"always_on": 1.0, "always_off": 0.0}.get(sampler)
    if fixed is not None:
        return fixed
    if sampler != "traceidratio":
        raise ValueError(
            f"OTEL_TRACES_SAMPLER: expected (parentbased_)always_on, always_off or traceidratio: {sampler!r}"
        )
    text = environment.get("OTEL_TRACES_SAMPLER_ARG", "1")
    ratio = float(text)
    if not 0 <= ratio <= 1:
        raise ValueError(f"OTEL_TRACES_SAMPLER_ARG: expected 0 to 1, got {text!r}")
    return ratio


def _provider(service: str) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": f"modelyard-{service}"}
    # Which calls are recorded is decided before there is a span: making one that says no takes ten times as long.
    provider = TracerProvider(ALWAYS_ON, Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
