"""The pod's life on the express lane: a small process around an Envoy that hosts Python."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator

import grpc
import grpc.aio
import psutil
import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from modelyard.core.channels import aio_channel, fixed_token, sync_channel
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import SERVICE_NAME, AioInferenceStub, InferenceStub, method_path
from support.certificates import self_signed
from support.door import free_port
from support.inference_pod import infer_request, output, row
from support.lane_program import LaneProgram
from support.lane_yard import NO_LIBRARY, Yard, lane_yard, left_in
from support.raw_grpc import raw_connection
from support.waiting import eventually, eventually_sync


@pytest.fixture(scope="module")
def yard() -> Iterator[Yard]:
    with lane_yard("express") as yard:
        yield yard


@pytest.fixture(scope="module")
def pod(yard: Yard) -> Iterator[LaneProgram]:
    """A pod that the tests leave alive."""
    with yard.pod("shared", MAX_REQUEST_BYTES=str(128 << 20), MAX_BATCH_SIZE=str(1 << 24)) as program:
        program.until_serving("scale")
        program.until_serving("slow")
        yield program


async def test_a_stop_answers_what_runs_ends_streams_and_leaves_nothing_behind(yard: Yard) -> None:
    with yard.pod("stopped") as pod:
        await asyncio.to_thread(pod.until_serving, "slow")
        children = pod.children
        assert len(children) == 1
        async with aio_channel(pod.address, fixed_token(yard.identity.token())) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            stub = AioInferenceStub(channel)
            wide = infer_request("slow", {"x": row(*[1.0] * 700)["x"].repeat(64, axis=0)})
            calls = [asyncio.ensure_future(stub.ModelInfer(wide)) for _ in range(16)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            pod.process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*calls)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await watch.read() is grpc.aio.EOF
        assert await asyncio.to_thread(pod.process.wait, 30) == 0
    assert {output(answer)[63][0] for answer in answers} == {1}
    assert not any(psutil.pid_exists(child) for child in children)
    assert left_in(pod.log_file.parent) == []
    assert pod.life == ["serving", "stopping", "stopped"]


def test_the_program_ends_with_its_envoy(yard: Yard) -> None:
    with yard.pod("crashed") as pod:
        pod.until_serving()
        os.kill(pod.children[0], signal.SIGSEGV)
        assert pod.process.wait(timeout=30) == 1
    assert pod.lines(level="error")[-1]["status"] == -signal.SIGSEGV
    assert left_in(pod.log_file.parent) == []


def test_envoy_ends_with_the_program(yard: Yard) -> None:
    with yard.pod("orphaned") as pod:
        eventually_sync(lambda: bool(pod.children), timeout=60)
        child = psutil.Process(pod.children[0])
        pod.process.kill()
        pod.process.wait()
        eventually_sync(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_all_other_calls_are_answered_by_grpc_itself(pod: LaneProgram, yard: Yard) -> None:
    with sync_channel(pod.address, lambda: yard.identity.metadata("admin")) as channel:
        assert InferenceStub(channel).ServerLive(pb.ServerLiveRequest()).live
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="scale"))
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        reflected = ProtoReflectionDescriptorDatabase(channel)
        found = descriptor_pool.DescriptorPool(reflected).FindServiceByName(SERVICE_NAME)
        assert "ModelInfer" in found.methods_by_name
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/inference.GRPCInferenceService/Nothing")(b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]  # it is a call too


async def test_a_caller_that_sends_nonsense_for_a_deadline_spoils_nobody_elses(yard: Yard) -> None:
    async def code(timeout: str) -> int | None:
        headers = [("te", "trailers"), ("content-type", "application/grpc"), ("grpc-timeout", timeout)]
        async with raw_connection(pod.address) as connection:
            stream = await connection.start(method_path("ServerLive"), headers)
            await stream.send(bytes(5), end=True)
            return (await stream.result()).code

    with yard.pod("spoiled") as pod:  # of its own: gRPC's complaint is no JSON
        await asyncio.to_thread(pod.until_serving)
        assert await code("soon") == grpc.StatusCode.INTERNAL.value[0]
        assert [await code("31S"), await code("31S")] == [0, 0]


async def test_a_cancelled_prediction_is_given_up(pod: LaneProgram, yard: Yard) -> None:
    async with aio_channel(pod.address, fixed_token(yard.identity.token())) as channel:
        stub = AioInferenceStub(channel)
        wide = infer_request("slow", {"x": row(*[1.0] * 700)["x"].repeat(512, axis=0)})
        calls = [stub.ModelInfer(wide, metadata=(("x-request-id", f"gone-{number}"),)) for number in range(8)]

        async def all_running() -> bool:
            statistics = await stub.ModelStatistics(pb.ModelStatisticsRequest(name="slow"))
            return statistics.model_stats[0].inference_stats.success.count > 0

        await eventually(all_running)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

        async def noticed() -> bool:
            return bool(pod.lines(event="call", code="CANCELLED"))

        await eventually(noticed)
        assert output(await stub.ModelInfer(infer_request("scale", row(1, 2)))) == [[2, 4]]


async def test_thousands_of_calls_at_once_are_all_answered(pod: LaneProgram, yard: Yard) -> None:
    headers = [
        ("te", "trailers"), ("content-type", "application/grpc"),
        ("authorization", f"Bearer {yard.identity.token('predictor')}"),
    ]  # fmt: skip
    message = infer_request("scale", row(1, 2)).SerializeToString()
    async with raw_connection(pod.address) as connection:
        streams = [await connection.start(method_path("ModelInfer"), headers) for _ in range(3000)]
        for stream in streams:
            await stream.send(b"\0" + len(message).to_bytes(4, "big") + message, end=True)
        codes = [(await stream.result(60)).code for stream in streams]
    # A full queue is told; nothing is forgotten.
    assert set(codes) <= {0, grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]}
    assert codes.count(0) > 0


def test_large_tensors_go_in_and_out(pod: LaneProgram, yard: Yard) -> None:
    with sync_channel(pod.address, lambda: yard.identity.metadata("predictor")) as channel:
        rows = row(1, 2)["x"].repeat(12_500_000, axis=0)  # 100 MB
        answer = InferenceStub(channel).ModelInfer(infer_request("scale", {"x": rows}))
    assert len(answer.raw_output_contents[0]) == rows.nbytes
    assert answer.raw_output_contents[0][-8:] == row(2, 4)["x"].tobytes()


def test_tls(yard: Yard) -> None:
    certificate, key = self_signed(yard.folder)
    address = f"localhost:{free_port()}"
    files = {"TLS_CERTIFICATE_FILE": str(certificate), "TLS_KEY_FILE": str(key)}
    with (
        yard.pod("tls", LISTEN=address.replace("localhost", "127.0.0.1"), **files) as pod,
        sync_channel(address, yard.identity.metadata, tls=True, root_certificates=certificate.read_bytes()) as channel,
    ):
        eventually_sync(lambda: pod.process.poll() is not None or _predicts(channel), timeout=60)
        assert _predicts(channel)


def _predicts(channel: grpc.Channel) -> bool:
    try:
        return bool(output(InferenceStub(channel).ModelInfer(infer_request("scale", row(1, 2)))) == [[2, 4]])
    except grpc.RpcError:
        return False


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"LISTEN": "somewhere"}, "expected host:port"),
        ({"DEVICE": "cuda"}, "computes nothing with CUDA here"),
        ({"TLS_KEY_FILE": "/nowhere/key.pem"}, "tls_certificate_file and tls_key_file belong together"),
        ({"LISTEN": "127.0.0.1:TAKEN"}, "Address already in use"),
    ],
)
def test_what_cannot_start_says_why_and_ends(yard: Yard, settings: dict[str, str], said: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        given = {name: value.replace("TAKEN", str(taken.getsockname()[1])) for name, value in settings.items()}
        with yard.pod("broken", **given) as pod:
            assert pod.process.wait(timeout=60) == 1
    assert said in pod.log_file.read_text()
    assert left_in(pod.log_file.parent) == []


WITHOUT_PYVOY = (
    "import importlib.util as u; real = u.find_spec; "
    "u.find_spec = lambda name, *rest: None if name == 'pyvoy' else real(name, *rest)"
)
WITHOUT_LIBRARIES = (
    "from pathlib import Path; from modelyard.http2 import library; from modelyard.inference.lane import requirements; "
    "library.LIBRARY = requirements.LIBRARY = Path('/none')"
)


@pytest.mark.parametrize(
    ("hide", "lane", "said"),
    [
        (WITHOUT_PYVOY, "express", ["the express lane cannot run here: pyvoy is not installed"]),
        (WITHOUT_LIBRARIES, "express", [f"the express lane cannot run here: {NO_LIBRARY}library"]),
        (
            WITHOUT_LIBRARIES, "auto",
            [
                f"the direct lane cannot run here: {NO_LIBRARY}libraries",
                f"the express lane cannot run here: {NO_LIBRARY}library",
                "computes nothing with CUDA here",
            ],
        ),
    ],
)  # fmt: skip
def test_without_its_parts_the_lane_is_refused_or_done_without(
    yard: Yard, hide: str, lane: str, said: list[str]
) -> None:
    done = yard.beginning(hide, lane)
    assert done.returncode == 1
    assert [text for text in said if text not in done.stderr] == []
