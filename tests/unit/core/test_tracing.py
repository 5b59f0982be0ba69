"""Traces: read, handed on, sampled, recorded; through real gRPC, to memory and to a real receiver."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import hypothesis.strategies as st
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, use_span
from structlog.testing import capture_logs

from modelyard.core import errors, logs, serving, tracing
from modelyard.core.channels import aio_channel, fixed_token, sync_channel
from modelyard.core.settings import ServiceSettings
from modelyard.core.trace_context import Parent, Trace, current, enter, outgoing
from modelyard.v1 import training_job_pb2, training_service_pb2, training_service_pb2_grpc
from support.identity import Identity
from support.otlp_receiver import otlp_receiver

METHOD = "/modelyard.v1.TrainingService/GetTrainingJob"
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-01", f"00-{TRACE_ID}-{SPAN_ID}-00"

Headers = dict[str, str]


class Training(training_service_pb2_grpc.TrainingServiceServicer):
    """Answers with the trace's headers that a call from here would carry; with `next`, by asking the next service."""

    def __init__(self, next_address: str = "", token: str = "") -> None:
        self._next = next_address
        self._token = token

    async def GetTrainingJob(self, request: training_service_pb2.GetTrainingJobRequest, context: Any) -> Any:
        if request.name == "missing":
            raise errors.NotFound.resource("missing")
        if request.name == "broken":
            raise RuntimeError("broken")
        logs.get_logger().info("working")
        if self._next:
            async with aio_channel(self._next, fixed_token(self._token)) as channel:
                stub = training_service_pb2_grpc.TrainingServiceStub(channel)
                return await stub.GetTrainingJob(training_service_pb2.GetTrainingJobRequest(name="x"))
        return training_job_pb2.TrainingJob(labels=dict(outgoing()))


@asynccontextmanager
async def served(identity: Identity, next_address: str = "") -> AsyncIterator[str]:
    servicer = Training(next_address, identity.token())

    def register(server: grpc.aio.Server) -> None:
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server(servicer, server)

    settings = ServiceSettings(token_keys_file=identity.keys_file, drain_delay_s=0)
    running = await serving.start(serving.Service(register, ["modelyard.v1.TrainingService"]), settings)
    try:
        yield running.address
    finally:
        await running.stop()


async def ask(address: str, identity: Identity, headers: Headers | None = None, name: str = "x") -> Headers:
    """The headers that a call from inside the call would carry."""
    async with aio_channel(address, fixed_token(identity.token())) as channel:
        stub = training_service_pb2_grpc.TrainingServiceStub(channel)
        request = training_service_pb2.GetTrainingJobRequest(name=name)
        try:
            answer = await stub.GetTrainingJob(request, metadata=tuple((headers or {}).items()))
        except grpc.aio.AioRpcError:
            return {}
        return dict(answer.labels)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What is recorded, of the calls whose callers ask for it."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with tracing.recording(provider):
        yield exporter


def ids(span: ReadableSpan) -> tuple[str, str, str]:
    """Trace, span and parent."""
    context, parent = span.context, span.parent
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", f"{parent.span_id:016x}" if parent else ""


async def test_without_a_trace_there_is_none(identity: Identity) -> None:
    async with served(identity) as address:
        assert await ask(address, identity) == {}


async def test_a_service_that_records_nothing_hands_the_trace_on(identity: Identity) -> None:
    async with served(identity) as last, served(identity, last) as first:
        headers = {"traceparent": SAMPLED, "tracestate": "vendor=1"}
        assert await ask(first, identity, headers) == headers


async def test_a_sampled_call_is_recorded_in_every_service_as_one_trace(
    identity: Identity, spans: InMemorySpanExporter
) -> None:
    async with served(identity) as last, served(identity, last) as first:
        told = await ask(first, identity, {"traceparent": SAMPLED, "tracestate": "vendor=1"})
    inner, outer = spans.get_finished_spans()
    assert ids(outer)[0] == ids(inner)[0] == TRACE_ID
    assert ids(outer)[2] == SPAN_ID
    assert ids(inner)[2] == ids(outer)[1]
    assert told == {"traceparent": f"00-{TRACE_ID}-{ids(inner)[1]}-01", "tracestate": "vendor=1"}
    assert (outer.name, outer.kind) == (METHOD[1:], SpanKind.SERVER)
    attributes = dict(outer.attributes or {})
    assert attributes.pop("modelyard.request_id")
    assert attributes == {
        "rpc.system": "grpc",
        "rpc.service": "modelyard.v1.TrainingService",
        "rpc.method": "GetTrainingJob",
        "rpc.response.status_code": "OK",
    }


async def test_a_call_that_its_caller_does_not_sample_is_handed_on_unsampled(
    identity: Identity, spans: InMemorySpanExporter
) -> None:
    tracing.SAMPLING.ratio = 1.0  # the caller's word counts for more
    async with served(identity) as address:
        assert await ask(address, identity, {"traceparent": UNSAMPLED}) == {"traceparent": UNSAMPLED}
    assert spans.get_finished_spans() == ()


@pytest.mark.parametrize(("name", "code", "fault"), [("missing", "NOT_FOUND", False), ("broken", "INTERNAL", True)])
async def test_a_failed_call_says_so_and_is_an_error_if_it_is_the_services_fault(
    identity: Identity, spans: InMemorySpanExporter, name: str, code: str, fault: bool
) -> None:
    async with served(identity) as address:
        await ask(address, identity, {"traceparent": SAMPLED}, name)
    (span,) = spans.get_finished_spans()
    assert (span.attributes or {})["rpc.response.status_code"] == code
    assert (span.status.status_code is StatusCode.ERROR) is fault


async def test_of_calls_without_a_trace_the_chosen_part_begins_one(
    identity: Identity, spans: InMemorySpanExporter
) -> None:
    async with served(identity) as address:
        assert await ask(address, identity) == {}
        tracing.SAMPLING.ratio = 1.0
        told = await ask(address, identity)
    (span,) = spans.get_finished_spans()
    trace_id, span_id, parent = ids(span)
    assert (told["traceparent"], parent) == (f"00-{trace_id}-{span_id}-01", "")


async def test_callers_cannot_ask_for_more_spans_than_the_limit(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "MOST_PER_SECOND", 3)
    monkeypatch.setattr(tracing.time, "monotonic", lambda: 1000.0)
    traces = [tracing.begin(METHOD, {"traceparent": SAMPLED}) for _ in range(5)]
    assert [trace is not None and trace.recorded for trace in traces] == [True, True, True, False, False]
    assert traces[4] is not None
    assert traces[4].headers == (("traceparent", SAMPLED),)
    monkeypatch.setattr(tracing.time, "monotonic", lambda: 1001.0)
    again = tracing.begin(METHOD, {"traceparent": SAMPLED})
    assert again is not None
    assert again.recorded
    for trace in (*traces, again):
        assert trace is not None
        trace.end("OK")
    assert len(spans.get_finished_spans()) == 4


async def test_parts_of_a_call_are_its_children_with_the_times_given(spans: InMemorySpanExporter) -> None:
    trace = tracing.begin(METHOD, {"traceparent": SAMPLED})
    assert trace is not None
    trace.child("queue", 1_000, 3_000, rows=2)
    trace.end("OK")
    part, call = spans.get_finished_spans()
    assert (part.name, part.start_time, part.end_time, dict(part.attributes or {})) == (
        "queue", 1_000, 3_000, {"modelyard.rows": 2},
    )  # fmt: skip
    assert ids(part)[::2] == ids(call)[:2]


@pytest.mark.parametrize(
    "header",
    [
        "", "x", SAMPLED.upper(), SAMPLED + "-00", f"ff-{TRACE_ID}-{SPAN_ID}-01", f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01", f"00-{TRACE_ID}-{SPAN_ID}", SAMPLED + " ", "0" + SAMPLED,
    ],
)  # fmt: skip
def test_a_header_that_is_none_is_passed_over(header: str) -> None:
    assert Parent.read({"traceparent": header}) is None
    assert tracing.begin(METHOD, {"traceparent": header}) is None


def test_a_header_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert Parent.read({"traceparent": f"cc-{TRACE_ID}-{SPAN_ID}-09-more"}) == Parent(TRACE_ID, SPAN_ID, sampled=True)


@given(st.text(max_size=80), st.text(max_size=600))
def test_no_header_is_a_reason_to_fail(header: str, state: str) -> None:
    trace = tracing.begin(METHOD, {"traceparent": header, "tracestate": state})
    assert trace is None or len(dict(trace.headers).get("tracestate", "")) <= 512


async def test_log_lines_carry_the_trace(identity: Identity) -> None:
    async with served(identity) as address:
        with capture_logs([logs.name_trace]) as lines:
            await ask(address, identity, {"traceparent": UNSAMPLED})
            await ask(address, identity)
    told = [(line["event"], line.get("trace_id")) for line in lines]
    assert told == [("working", TRACE_ID), ("call", TRACE_ID), ("working", None), ("call", None)]


async def test_a_program_with_a_span_of_its_own_sends_it(identity: Identity) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    span = provider.get_tracer("a program").start_span("its own")
    async with served(identity) as address:

        def ask_in_thread() -> dict[str, str]:
            with use_span(span), sync_channel(address, fixed_token(identity.token())) as channel:
                stub = training_service_pb2_grpc.TrainingServiceStub(channel)
                return dict(stub.GetTrainingJob(training_service_pb2.GetTrainingJobRequest(name="x")).labels)

        told = await asyncio.to_thread(ask_in_thread)
    trace_id, span_id, _ = ids(span)  # type: ignore[arg-type]  # the SDK's span can be read
    assert told["traceparent"] == f"00-{trace_id}-{span_id}-01"


def test_a_program_without_opentelemetry_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert outgoing() == ()


async def test_a_trace_stays_in_its_task_and_those_it_starts() -> None:
    async def inside() -> Trace | None:
        enter(Trace(TRACE_ID, SPAN_ID, sampled=False))
        return await asyncio.create_task(asyncio.sleep(0, current()))

    found = await asyncio.create_task(inside())
    assert found is not None
    assert current() is None


async def test_spans_arrive_at_a_real_receiver_with_the_services_name(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with otlp_receiver() as (endpoint, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        exporting = tracing.exporting("gateway")
        exporting.__enter__()
        async with served(identity) as address:
            await ask(address, identity)
            await ask(address, identity, {"traceparent": SAMPLED})
        # What is left is sent at the end, while the receiver's event loop must go on.
        await asyncio.to_thread(exporting.__exit__, None, None, None)
    assert received.services == {"modelyard-gateway"}
    (span,) = received.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.name) == (TRACE_ID, SPAN_ID, METHOD[1:])


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_recorded_unless_the_environment_asks_for_it(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with tracing.exporting("gateway"):
        assert not tracing.SAMPLING.available


def test_a_protocol_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with capture_logs() as lines, tracing.exporting("gateway"):
        assert tracing.SAMPLING.available
    assert "http/protobuf" in [line.get("asked_for") for line in lines]


def test_without_the_extra_the_service_runs_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with capture_logs() as lines, tracing.exporting("gateway"):
        assert not tracing.SAMPLING.available
    assert ["modelyard[tracing]" in line["event"] for line in lines] == [True]


@pytest.mark.parametrize(
    ("sampler", "argument", "ratio"),
    [
        ("", "", 1.0), ("always_on", "", 1.0), ("parentbased_always_on", "0.5", 1.0), ("always_off", "", 0.0),
        ("parentbased_traceidratio", "0.25", 0.25), ("traceidratio", None, 1.0),
    ],
)  # fmt: skip
def test_the_standard_variables_choose_the_part(sampler: str, argument: str | None, ratio: float) -> None:
    environment = {"OTEL_TRACES_SAMPLER": sampler}
    if argument is not None:
        environment["OTEL_TRACES_SAMPLER_ARG"] = argument
    assert tracing.root_ratio(environment) == ratio


@pytest.mark.parametrize(("sampler", "argument"), [("jaeger_remote", ""), ("traceidratio", "2"), ("traceidratio", "x")])
def test_a_sampler_that_is_not_known_ends_the_program_at_the_start(sampler: str, argument: str) -> None:
    with pytest.raises(ValueError, match=r"OTEL_TRACES_SAMPLER|could not convert"):
        tracing.root_ratio({"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument})


async def test_health_is_traced_like_any_call(identity: Identity, spans: InMemorySpanExporter) -> None:
    async with served(identity) as address, aio_channel(address) as channel:
        request = health_pb2.HealthCheckRequest()
        await health_pb2_grpc.HealthStub(channel).Check(request, metadata=(("traceparent", SAMPLED),))
    assert [span.name for span in spans.get_finished_spans()] == ["grpc.health.v1.Health/Check"]
