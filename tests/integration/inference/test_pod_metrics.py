"""What a pod tells at /metrics: under Triton's names, and under ours; it adds up, and goes with what it is about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from modelyard.core.channels import aio_channel, fixed_token
from modelyard.core.errors import RemoteError
from modelyard.inference.observation.failures import REASONS
from modelyard.inference.serving.tenants import LIMIT, OTHERS
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import AioInferenceStub
from support import graphs
from support.documentation import documented, types_told
from support.identity import Identity
from support.inference_pod import Pod, infer_request, row, running_pod
from support.scraping import Scrape, lint, scrape
from support.served_registry import ServedRegistry
from support.waiting import eventually

TRITONS = {
    "nv_inference_request_success": "counter",
    "nv_inference_request_failure": "counter",
    "nv_inference_count": "counter",
    "nv_inference_exec_count": "counter",
    "nv_inference_request_duration_us": "counter",
    "nv_inference_queue_duration_us": "counter",
    "nv_inference_compute_input_duration_us": "counter",
    "nv_inference_compute_infer_duration_us": "counter",
    "nv_inference_compute_output_duration_us": "counter",
    "nv_inference_pending_request_count": "gauge",
    "nv_model_load_duration_secs": "gauge",
    "nv_cpu_utilization": "gauge",
    "nv_cpu_memory_total_bytes": "gauge",
    "nv_cpu_memory_used_bytes": "gauge",
}
"""What Triton 2.51 tells on a machine without an accelerator, as far as we have such a thing."""


@pytest.fixture
async def measured(registry_address: str, identity: Identity, tmp_path: Path) -> AsyncIterator[Pod]:
    """A pod with one thread and a queue for two, whose metrics are served."""
    settings = {"metrics_listen": "127.0.0.1:0", "runners": 1, "queue_size": 2}
    async with running_pod(registry_address, identity, tmp_path / "pod", **settings) as pod:
        yield pod


async def told_by(pod: Pod) -> Scrape:
    assert pod.running.metrics is not None
    return await scrape(pod.running.metrics.address)


async def eventually_told(pod: Pod, holds: Callable[[Scrape], bool]) -> Scrape:
    """The first answer of which this holds."""

    async def right() -> Scrape | None:
        told = await told_by(pod)
        return told if holds(told) else None

    found = await eventually(right)
    assert found is not None
    return found


async def refused(call: Awaitable[object]) -> grpc.StatusCode:
    with pytest.raises(RemoteError) as raised:
        await call
    return raised.value.code


async def test_the_counters_are_tritons_and_say_what_the_statistics_say(
    registry: ServedRegistry, measured: Pod
) -> None:
    registry.add("double", graphs.scale(2))
    await measured.until_ready("double")
    await measured.predict("double", row(1, 2))
    await measured.predict("double", {"x": row(1, 2)["x"].repeat(8, axis=0)})
    wrong = infer_request("double", row(1, 2))
    wrong.inputs[0].name = "z"
    assert await refused(measured.infer(wrong)) is grpc.StatusCode.INVALID_ARGUMENT
    told = await told_by(measured)
    statistics = (await measured.stub.ModelStatistics(pb.ModelStatisticsRequest(name="double"))).model_stats[0]

    of = {"model": "double", "version": "1"}
    types = dict(line.split()[2:] for line in told.text.splitlines() if line.startswith("# TYPE nv_"))
    assert types == TRITONS
    assert 'nv_inference_request_success{model="double",version="1"} 2.0' in told.text
    assert told.value("nv_inference_request_success", **of) == statistics.inference_stats.success.count == 2
    assert told.value("nv_inference_count", **of) == statistics.inference_count == 9
    assert told.value("nv_inference_exec_count", **of) == statistics.execution_count == 2
    assert told.value("nv_inference_pending_request_count", **of) == 0
    assert told.value("nv_model_load_duration_secs", **of) > 0
    times = {
        "request": statistics.inference_stats.success.ns,
        "queue": statistics.inference_stats.queue.ns,
        "compute_input": statistics.inference_stats.compute_input.ns,
        "compute_infer": statistics.inference_stats.compute_infer.ns,
        "compute_output": statistics.inference_stats.compute_output.ns,
    }
    for stage, ns in times.items():
        assert told.value(f"nv_inference_{stage}_duration_us", **of) == ns // 1000
    reasons = {reason: told.value("nv_inference_request_failure", reason=reason, **of) for reason in REASONS}
    assert reasons == {"REJECTED": 0, "CANCELED": 0, "BACKEND": 0, "OTHER": 1}
    assert sum(reasons.values()) == statistics.inference_stats.fail.count
    assert 0 <= told.value("nv_cpu_utilization") <= 1
    assert 0 < told.value("nv_cpu_memory_used_bytes") < told.value("nv_cpu_memory_total_bytes")


async def test_the_histograms_have_every_request_and_every_run(registry: ServedRegistry, measured: Pod) -> None:
    registry.add("double", graphs.scale(2))
    await measured.until_ready("double")
    for rows in (1, 1, 3, 64):
        await measured.predict("double", {"x": row(1, 2)["x"].repeat(rows, axis=0)})
    told = await told_by(measured)
    of = {"model": "double", "version": "1"}
    for name in ("request_seconds", "queue_seconds", "compute_seconds", "batch_rows"):
        assert told.value(f"modelyard_inference_{name}_count", **of) == 4
        assert told.value(f"modelyard_inference_{name}_bucket", le="+Inf", **of) == 4
    below = {
        le: told.value("modelyard_inference_batch_rows_bucket", le=le, **of) for le in ("1.0", "2.0", "4.0", "64.0")
    }
    assert below == {"1.0": 2, "2.0": 2, "4.0": 3, "64.0": 4}
    assert told.value("modelyard_inference_batch_rows_sum", **of) == 69
    assert told.value("modelyard_inference_compute_seconds_sum", **of) < told.value(
        "modelyard_inference_request_seconds_sum", **of
    )


async def test_a_full_queue_and_a_cancel_are_told_apart(registry: ServedRegistry, measured: Pod) -> None:
    registry.add("slow", graphs.slow())
    await measured.until_ready("slow")
    long = infer_request("slow", {"x": np.ones((64, 700), np.float32)})
    late = infer_request("slow", {"x": np.ones((64, 700), np.float32)})
    late.parameters["timeout"].int64_param = 1
    assert await refused(measured.infer(late)) is grpc.StatusCode.DEADLINE_EXCEEDED
    results = await asyncio.gather(*(measured.infer(long) for _ in range(30)), return_exceptions=True)
    full = [result for result in results if isinstance(result, RemoteError)]
    assert {error.code for error in full} == {grpc.StatusCode.RESOURCE_EXHAUSTED}

    def failures(told: Scrape) -> dict[str, float]:
        return {
            reason: told.value("nv_inference_request_failure", model="slow", version="1", reason=reason)
            for reason in REASONS
        }

    refused_only = {"REJECTED": len(full) + 1, "CANCELED": 0, "BACKEND": 0, "OTHER": 0}
    assert failures(await told_by(measured)) == refused_only

    async def cancelled() -> bool:
        """Whether a call was cancelled before it was answered: the machine may be quicker than its caller."""
        before = (await told_by(measured)).value("grpc_server_started_total", **_infer())
        call = measured.stub.ModelInfer(long)
        await eventually_told(measured, lambda told: told.value("grpc_server_started_total", **_infer()) > before)
        call.cancel()
        ended = before + 1
        told = await eventually_told(
            measured, lambda told: told.value("grpc_server_handling_seconds_count", **_infer()) == ended
        )
        return failures(told) == {**refused_only, "CANCELED": 1}

    await eventually(cancelled)


async def test_what_is_told_of_a_version_goes_with_it(registry: ServedRegistry, measured: Pod) -> None:
    registry.add("scale", graphs.scale(1))
    await measured.until_ready("scale")
    await measured.predict("scale", row(1, 2))
    for factor in range(2, 8):
        registry.add("scale", graphs.scale(factor))
        await measured.until_ready("scale", str(factor))

    def only_the_last(told: Scrape) -> bool:
        versions = {labels["version"] for labels in told.labels("nv_inference_count")}
        return versions == {"7"} and told.value("modelyard_pod_versions", state="retiring") == 0

    told = await eventually_told(measured, only_the_last)
    labelled = {sample.labels["version"] for family in told.families.values() for sample in family.samples
                if "model" in sample.labels and "version" in sample.labels}  # fmt: skip
    assert labelled == {"7"}
    assert told.value("modelyard_pod_alias_switches_total", model="scale") == 7
    assert told.value("modelyard_pod_version_load_seconds_count") == 7
    registry.point("scale", "live", None)
    await eventually_told(measured, lambda told: not _with_models(told))


def _with_models(told: Scrape) -> list[str]:
    """Names of what is told by model."""
    return [family.name for family in told.families.values() if any("model" in s.labels for s in family.samples)]


async def test_a_broken_version_and_the_link_to_the_registry_can_be_seen(
    registry: ServedRegistry, measured: Pod
) -> None:
    registry.add("broken", b"no graph")

    def tried_twice(told: Scrape) -> bool:
        failed = {"model": "broken"} in told.labels("modelyard_pod_version_load_failures_total")
        return failed and told.value("modelyard_pod_version_load_failures_total", model="broken") >= 2

    told = await eventually_told(measured, tried_twice)
    assert told.value("modelyard_pod_versions", state="broken") == 1
    assert told.value("modelyard_pod_versions", state="loaded") == 0
    assert told.value("modelyard_pod_ready") == 1  # a broken version does not take the pod out of service
    assert told.value("modelyard_pod_registry_connected") == 1
    assert told.value("modelyard_pod_cache_bytes") >= len(b"no graph")
    assert told.value("modelyard_pod_memory_bytes") == 0
    assert told.value("modelyard_pod_memory_limit_bytes") > 0


async def test_tenants_are_told_by_name_up_to_a_limit(
    registry: ServedRegistry, measured: Pod, identity: Identity
) -> None:
    registry.add("double", graphs.scale(2))
    await measured.until_ready("double")
    request = infer_request("double", row(1, 2))
    for number in range(LIMIT + 5):
        token = identity.token("predictor", tenant=f"tenant-{number}")
        async with aio_channel(measured.address, fixed_token(token)) as channel:
            await AioInferenceStub(channel).ModelInfer(request)
    told = await told_by(measured)
    name = "modelyard_inference_tenant_requests_total"
    assert len(told.labels(name)) == LIMIT + 1
    assert told.value(name, tenant="tenant-0") == 1
    assert told.value(name, tenant=OTHERS) == 5
    assert told.value("modelyard_inference_tenant_rows_total", tenant=OTHERS) == 5
    for stage in ("request", "queue", "compute"):
        assert told.value(f"modelyard_inference_tenant_{stage}_seconds_count", tenant=OTHERS) == 5


async def test_what_is_told_is_what_the_documentation_says_in_good_form(
    registry: ServedRegistry, measured: Pod, identity: Identity
) -> None:
    registry.add("double", graphs.scale(2))
    await measured.until_ready("double")
    await measured.predict("double", row(1, 2))
    token = identity.token("predictor", tenant="blue")
    async with aio_channel(measured.address, fixed_token(token)) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await AioInferenceStub(channel).ModelInfer(infer_request("double", {}))
    answer = await told_by(measured)
    assert await asyncio.to_thread(lint, answer.text) == []
    elsewhere = ("modelyard_gateway_", "modelyard_registry_")
    assert types_told(answer) == {name: kind for name, kind in documented().items() if not name.startswith(elsewhere)}


def _infer() -> dict[str, str]:
    return {"grpc_type": "unary", "grpc_service": "inference.GRPCInferenceService", "grpc_method": "ModelInfer"}
