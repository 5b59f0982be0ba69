"""A prediction's trace, from a real pod on each lane to a real receiver."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from opentelemetry.proto.trace.v1 import trace_pb2

from modelyard.core import tracing
from modelyard.core.channels import aio_channel, fixed_token
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import AioInferenceStub
from support import graphs
from support.background import serve_in_background
from support.identity import Identity
from support.inference_pod import Pod, infer_request, output, row
from support.lane_program import lane_program
from support.otlp_receiver import Received, otlp_receiver
from support.served_registry import ServedRegistry

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
INFER = "inference.GRPCInferenceService/ModelInfer"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="traced-") as name:
        yield Path(name)


def parent(flags: str) -> tuple[tuple[str, str], ...]:
    return (("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-{flags}"), ("x-request-id", "request-7"))


def attributes(span: trace_pb2.Span) -> dict[str, Any]:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}


async def predict(address: str, identity: Identity) -> None:
    """Two predictions, one of them sampled, and a refused one that is."""
    async with aio_channel(address, fixed_token(identity.token("predictor"))) as channel:
        stub = AioInferenceStub(channel)
        for flags in ("00", "01"):
            assert output(await stub.ModelInfer(infer_request("scale", row(1, 2)), metadata=parent(flags))) == [[2, 4]]
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.ModelInfer(pb.ModelInferRequest(model_name="nobody"), metadata=parent("01"))


@pytest.mark.parametrize("lane", ["express", "direct"])
async def test_a_sampled_prediction_arrives_with_its_stages_from_the_quick_lanes(
    lane: str, identity: Identity, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = ServedRegistry()
    registry.add("scale", graphs.scale(2))
    async with otlp_receiver() as (endpoint, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        with (
            serve_in_background(registry.service(), identity, f"unix:{folder}/registry.sock") as served,
            lane_program(served.address, identity, folder / "pod", lane=lane) as program,
        ):
            await asyncio.to_thread(program.until_serving, "scale")
            await predict(program.address, identity)
            assert await asyncio.to_thread(program.stop) == 0
    check(received)
    (line,) = program.lines(method=f"/{INFER}", code="NOT_FOUND")
    assert (line["trace_id"], line["request_id"]) == (TRACE_ID, "request-7")


async def test_a_sampled_prediction_arrives_with_its_stages_from_the_plain_lane(
    identity: Identity, registry: ServedRegistry, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add("scale", graphs.scale(2))
    await pod.until_ready("scale")
    async with otlp_receiver() as (endpoint, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        exporting = tracing.exporting("inference")
        exporting.__enter__()
        await predict(pod.address, identity)
        # What is left is sent at the end, while the receiver's event loop must go on.
        await asyncio.to_thread(exporting.__exit__, None, None, None)
    check(received)


def check(received: Received) -> None:
    """Two calls were recorded, and the stages of the one that was answered."""
    assert received.services == {"modelyard-inference"}
    assert {span.trace_id.hex() for span in received.spans} == {TRACE_ID}
    refused, answered = sorted(
        (span for span in received.spans if span.name == INFER),
        key=lambda span: attributes(span)["rpc.response.status_code"],
    )
    assert {span.parent_span_id.hex() for span in (answered, refused)} == {SPAN_ID}
    assert attributes(refused)["rpc.response.status_code"] == "NOT_FOUND"
    assert attributes(answered) == {
        "rpc.system": "grpc", "rpc.service": "inference.GRPCInferenceService", "rpc.method": "ModelInfer",
        "rpc.response.status_code": "OK", "modelyard.request_id": "request-7", "modelyard.model": "scale",
        "modelyard.version": "1", "modelyard.rows": 1,
    }  # fmt: skip
    stages = [span for span in received.spans if span.parent_span_id == answered.span_id]
    assert [span.name for span in stages] == ["queue", "compute", "output"]
    for before, after in pairwise(stages):
        assert before.end_time_unix_nano == after.start_time_unix_nano
    assert attributes(stages[1]) == {"modelyard.batch_requests": 1, "modelyard.batch_rows": 1}
    assert len(received.spans) == 5
