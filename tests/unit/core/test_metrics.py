"""Calls are counted by method and code, and told over HTTP in Prometheus' format."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import hypothesis.strategies as st
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

from modelyard.core import errors, serving
from modelyard.core.channels import aio_channel, fixed_token
from modelyard.core.metrics import CallMetrics, ComputedSource, Histogram, MetricsSource, seconds_histogram
from modelyard.core.settings import ServiceSettings
from modelyard.v1 import training_job_pb2, training_service_pb2, training_service_pb2_grpc
from support.identity import Identity
from support.scraping import fetch, lint, scrape
from support.waiting import eventually

SERVICE = "modelyard.v1.TrainingService"


class Training(training_service_pb2_grpc.TrainingServiceServicer):
    """Finds job `a`, streams one event and then waits, and fails in ways of its own."""

    async def GetTrainingJob(self, request: training_service_pb2.GetTrainingJobRequest, context: Any) -> Any:
        if request.name == "aborts":
            await context.abort(grpc.StatusCode.DATA_LOSS, "by itself")
        if request.name != "a":
            raise errors.NotFound.resource(request.name)
        return training_job_pb2.TrainingJob(name="a")

    async def WatchTrainingJob(self, request: Any, context: Any) -> Any:
        yield training_job_pb2.TrainingJobEvent(sequence=1)
        await asyncio.Event().wait()


@asynccontextmanager
async def measured(
    identity: Identity, sources: Mapping[str, MetricsSource] | None = None, *, role: str = "admin", **settings: Any
) -> AsyncIterator[tuple[grpc.aio.Channel, str]]:
    """A channel to a service, and where its metrics are."""

    def register(server: grpc.aio.Server) -> None:
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server(Training(), server)

    service = serving.Service(register, [SERVICE], metrics=sources or {})
    options = {"metrics_listen": "127.0.0.1:0", "drain_delay_s": 0, "shutdown_grace_s": 0, **settings}
    running = await serving.start(service, ServiceSettings(token_keys_file=identity.keys_file, **options))
    assert running.metrics is not None
    try:
        async with aio_channel(running.address, fixed_token(identity.token(role))) as channel:
            yield channel, running.metrics.address
    finally:
        await running.stop()


def of(method: str, kind: str = "unary") -> dict[str, str]:
    return {"grpc_type": kind, "grpc_service": SERVICE, "grpc_method": method}


async def get(channel: grpc.aio.Channel, name: str) -> None:
    stub = training_service_pb2_grpc.TrainingServiceStub(channel)
    try:
        await stub.GetTrainingJob(training_service_pb2.GetTrainingJobRequest(name=name))
    except grpc.aio.AioRpcError:
        return


async def test_calls_are_counted_by_method_and_code(identity: Identity) -> None:
    async with measured(identity) as (channel, address):
        for name in ("a", "a", "b", "aborts"):
            await get(channel, name)
        # Outside this service's methods nothing is counted, whatever a caller asks for.
        for path in ("/modelyard.v1.TrainingService/Nothing", "/made.up/Method"):
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(path)(b"")
        told = await scrape(address)
    codes = {
        code: told.value("grpc_server_handled_total", grpc_code=code, **of("GetTrainingJob"))
        for code in ("OK", "NOT_FOUND", "DATA_LOSS")
    }
    assert codes == {"OK": 2, "NOT_FOUND": 1, "DATA_LOSS": 1}
    assert told.value("grpc_server_started_total", **of("GetTrainingJob")) == 4
    assert told.value("grpc_server_handling_seconds_count", **of("GetTrainingJob")) == 4
    assert {labels["grpc_method"] for labels in told.labels("grpc_server_started_total")} == {"GetTrainingJob"}


async def test_a_refused_call_counts_with_its_code(identity: Identity) -> None:
    async with measured(identity, role="predictor") as (channel, address):
        await get(channel, "a")
        handled = (await scrape(address)).labels("grpc_server_handled_total")
    assert [labels["grpc_code"] for labels in handled] == ["PERMISSION_DENIED"]


async def test_a_stream_that_its_caller_leaves_counts_as_cancelled(identity: Identity) -> None:
    async with measured(identity) as (channel, address):
        stub = training_service_pb2_grpc.TrainingServiceStub(channel)
        events = stub.WatchTrainingJob(training_service_pb2.WatchTrainingJobRequest(name="a"))
        assert (await events.read()).sequence == 1
        labels = of("WatchTrainingJob", "server_stream")
        assert (await scrape(address)).value("grpc_server_started_total", **labels) == 1
        events.cancel()

        async def cancelled() -> bool:
            handled = (await scrape(address)).labels("grpc_server_handled_total")
            return {"grpc_code": "CANCELLED", **labels} in handled

        await eventually(cancelled)


async def test_the_exposition_is_as_promtool_wants_it(identity: Identity) -> None:
    async with measured(identity) as (channel, address):
        await get(channel, "a")
        told = await scrape(address)
    assert await asyncio.to_thread(lint, told.text) == []
    assert told.value("process_resident_memory_bytes") > 0


async def test_metrics_are_at_one_path_and_only_to_be_read(identity: Identity) -> None:
    async with measured(identity) as (_, address):
        for request, code in (
            (urllib.request.Request(f"http://{address}/"), 404),
            (urllib.request.Request(f"http://{address}/metrics/x"), 404),
            (urllib.request.Request(f"http://{address}/metrics", data=b"x", method="POST"), 405),
        ):
            with pytest.raises(urllib.error.HTTPError) as raised:
                await asyncio.to_thread(urllib.request.urlopen, request, timeout=10)
            assert raised.value.code == code
            raised.value.close()


async def test_a_source_that_fails_leaves_the_others_and_is_counted(identity: Identity) -> None:
    class Broken:
        async def metrics(self) -> Iterable[Metric]:
            raise OSError("the database is away")

    good = ComputedSource(lambda: [GaugeMetricFamily("modelyard_jobs", "Jobs.", 3)])
    async with measured(identity, {"broken": Broken(), "good": good}) as (_, address):
        await scrape(address)
        told = await scrape(address)
    assert told.value("modelyard_jobs") == 3
    assert told.value("modelyard_metrics_errors_total", source="broken") == 2
    assert told.value("modelyard_metrics_errors_total", source="good") == 0


async def test_a_taken_address_is_an_error_with_the_address(identity: Identity) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot serve metrics on {address}"):
            async with measured(identity, metrics_listen=address):
                pass


async def test_without_an_address_nothing_is_served(identity: Identity) -> None:
    settings = ServiceSettings(token_keys_file=identity.keys_file, drain_delay_s=0)
    running = await serving.start(serving.Service(lambda server: None, [SERVICE]), settings)
    assert running.metrics is None
    await running.stop()


async def test_metrics_are_told_until_the_last_call_has_ended(identity: Identity) -> None:
    settings = ServiceSettings(
        token_keys_file=identity.keys_file, metrics_listen="127.0.0.1:0", drain_delay_s=60, shutdown_grace_s=0
    )
    running = await serving.start(serving.Service(lambda server: None, [SERVICE]), settings)
    assert running.metrics is not None
    hurry = asyncio.Event()
    stopping = asyncio.create_task(running.stop(hurry))
    async with aio_channel(running.address) as channel:
        request = health_pb2.HealthCheckRequest(service=SERVICE)

        async def draining() -> bool:
            answer = await health_pb2_grpc.HealthStub(channel).Check(request)
            return answer.status == health_pb2.HealthCheckResponse.NOT_SERVING

        await eventually(draining)
    assert (await scrape(running.metrics.address)).families
    hurry.set()
    await stopping
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(fetch, f"http://{running.metrics.address}/metrics")


@given(st.lists(st.integers(0, 10**12)))
def test_a_histogram_counts_every_value_in_the_buckets_at_or_above_it(values: list[int]) -> None:
    bounds = (0.001, 0.01, 1.0, 60.0)
    histogram = seconds_histogram(bounds)
    for value in values:
        histogram.observe(value)
    family = HistogramMetricFamily("x", "x", labels=[])
    histogram.tell(family, [])
    told = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    expected = {str(bound): sum(value <= bound * 1e9 for value in values) for bound in bounds}
    assert told == {**expected, "+Inf": len(values), "x_count": len(values), "x_sum": sum(values) / 1e9}
    assert histogram.count == len(values)


def test_a_histogram_without_a_scale_counts_in_its_own_unit() -> None:
    histogram = Histogram((1, 2, 4))
    for rows in (1, 3, 9):
        histogram.observe(rows)
    family = HistogramMetricFamily("rows", "rows", labels=[])
    histogram.tell(family, [])
    assert [sample.value for sample in family.samples] == [1, 1, 2, 3, 3, 13]


async def test_a_lane_of_its_own_counts_where_grpc_counts() -> None:
    calls = CallMetrics()
    method = calls.of("/inference.GRPCInferenceService/ModelInfer")
    method.begin()
    method.end("OK", 2_000_000)
    assert calls.of("/inference.GRPCInferenceService/ModelInfer") is method
    started, handled, handling = await calls.metrics()
    labels = {"grpc_type": "unary", "grpc_service": "inference.GRPCInferenceService", "grpc_method": "ModelInfer"}
    assert [(sample.labels, sample.value) for sample in started.samples] == [(labels, 1)]
    assert [(sample.labels, sample.value) for sample in handled.samples] == [({**labels, "grpc_code": "OK"}, 1)]
    assert [sample.value for sample in handling.samples if sample.name.endswith("_sum")] == [0.002]
