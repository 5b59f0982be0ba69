"""The pod's life on the direct lane: its own HTTP/2 server and gRPC's behind it, in one process."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard.core.channels import aio_channel, fixed_token, sync_channel
from modelyard.core.errors import RemoteError
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import AioInferenceStub, InferenceStub, method_path
from support.certificates import self_signed
from support.inference_pod import infer_request, output, row
from support.lane_program import LaneProgram
from support.lane_yard import NO_LIBRARY, Yard, lane_yard, left_in
from support.raw_grpc import raw_connection
from support.waiting import eventually, eventually_sync

Health = health_pb2.HealthCheckResponse
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture(scope="module")
def yard() -> Iterator[Yard]:
    with lane_yard("direct") as yard:
        yield yard


@pytest.fixture(scope="module")
def pod(yard: Yard) -> Iterator[LaneProgram]:
    """A pod that the tests leave alive."""
    with yard.pod("shared", MAX_BATCH_SIZE=str(1 << 24)) as program:
        program.until_serving("scale")
        yield program


def wide(rows: int) -> pb.ModelInferRequest:
    """One that takes its time."""
    return infer_request("slow", {"x": np.ones((rows, 700), np.float32)})


def works(address: str, yard: Yard) -> bool:
    """Whether a pod answers a prediction, and a call that is relayed."""
    with sync_channel(address, lambda: yard.identity.metadata("predictor")) as channel:
        stub = InferenceStub(channel)
        predicted = output(stub.ModelInfer(infer_request("scale", row(1, 2)), timeout=30))
        return predicted == [[2, 4]] and stub.ServerLive(pb.ServerLiveRequest(), timeout=30).live


async def test_a_stop_answers_what_runs_ends_streams_and_leaves_nothing_behind(yard: Yard) -> None:
    with yard.pod("stopped") as pod:
        await asyncio.to_thread(pod.until_serving, "slow")
        async with (
            aio_channel(pod.address, fixed_token(yard.identity.token())) as channel,
            raw_connection(pod.address) as idle,
        ):
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == Health.SERVING
            stub = AioInferenceStub(channel)
            stream = stub.ModelStreamInfer()
            await stream.write(infer_request("scale", row(1, 2)))
            assert output((await stream.read()).infer_response) == [[2, 4]]
            calls = [asyncio.ensure_future(stub.ModelInfer(wide(64))) for _ in range(16)]
            await stream.write(wide(64))
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            pod.process.send_signal(signal.SIGTERM)
            answers = [*await asyncio.gather(*calls), (await stream.read()).infer_response]
            assert (await watch.read()).status == Health.NOT_SERVING
            assert await watch.read() is grpc.aio.EOF
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await stream.read()
            assert RemoteError.from_rpc(ended.value).code is grpc.StatusCode.UNAVAILABLE
            assert "the pod is stopping" in str(ended.value.details())
            assert await asyncio.to_thread(pod.process.wait, 30) == 0
            assert idle.going_away
    assert {output(answer)[63][0] for answer in answers} == {1}
    assert left_in(pod.log_file.parent) == []
    assert pod.life == ["serving", "stopping", "stopped"]
    assert pod.lines(level="error") == []


async def test_before_it_stops_it_takes_calls_until_it_is_hurried(yard: Yard) -> None:
    with yard.pod("hurried", DRAIN_DELAY_S="3600") as pod:
        await asyncio.to_thread(pod.until_serving)
        async with aio_channel(pod.address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == Health.SERVING
            pod.process.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == Health.NOT_SERVING
            assert await asyncio.to_thread(works, pod.address, yard)
            pod.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(pod.process.wait, 30) == 0
    assert left_in(pod.log_file.parent) == []
    assert pod.life == ["serving", "stopping", "stopped"]


@pytest.mark.parametrize("lane", ["direct", "plain"])
async def test_a_second_signal_during_the_grace_ends_it(yard: Yard, lane: str) -> None:
    with yard.pod("impatient", LANE=lane, DRAIN_DELAY_S="0", SHUTDOWN_GRACE_S="3600") as pod:
        await asyncio.to_thread(pod.until_serving)
        async with raw_connection(pod.address) as connection:
            headers = [("te", "trailers"), ("content-type", "application/grpc")]
            for path in (method_path("ModelInfer"), method_path("ServerLive")):
                await connection.start(path, headers)  # without an end

            async def in_the_grace() -> bool:
                with suppress(OSError):
                    async with connected(pod):
                        return False
                return True  # nobody listens any more

            pod.process.send_signal(signal.SIGTERM)
            await eventually(in_the_grace)
            assert pod.process.poll() is None
            pod.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(pod.process.wait, 30) == 0
    assert left_in(pod.log_file.parent) == []
    assert pod.life == ["serving", "stopping", "stopped"]


async def test_after_the_grace_the_calls_that_run_are_cut_off(yard: Yard) -> None:
    with yard.pod("cut", DRAIN_DELAY_S="0", SHUTDOWN_GRACE_S="0") as pod:
        await asyncio.to_thread(pod.until_serving, "slow")
        async with aio_channel(pod.address, fixed_token(yard.identity.token())) as channel:
            stub = AioInferenceStub(channel)
            calls = [stub.ModelInfer(wide(512)) for _ in range(8)]
            stream = stub.ModelStreamInfer(iter([wide(512)] * 4))

            async def some_run() -> bool:
                asked = await stub.ModelStatistics(pb.ModelStatisticsRequest(name="slow"))
                return asked.model_stats[0].inference_stats.success.count > 0

            await eventually(some_run)
            pod.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(pod.process.wait, 30) == 0
            ends = await asyncio.gather(*calls, stream.read(), return_exceptions=True)
    refused = [end.code() for end in ends if isinstance(end, grpc.aio.AioRpcError)]
    assert refused
    assert set(refused) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert left_in(pod.log_file.parent) == []
    assert pod.life == ["serving", "stopping", "stopped"]


def test_the_socket_that_a_killed_one_left_is_in_nobodys_way(yard: Yard) -> None:
    folder = yard.folder / "again"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "pod.sock"))
    with yard.pod("again") as pod:
        pod.until_serving("scale")
        assert pod.stop() == 0
    assert left_in(folder) == []


@pytest.mark.parametrize(
    ("listen", "reached_at"),
    [("127.0.0.1:0", ["127.0.0.1"]), ("[::]:0", ["127.0.0.1", "[::1]"])],
)
def test_it_listens_on_tcp(yard: Yard, listen: str, reached_at: list[str]) -> None:
    if "[::1]" in reached_at and not socket.has_dualstack_ipv6():
        reached_at = ["127.0.0.1"]
    with yard.pod("tcp", LISTEN=listen) as pod:
        eventually_sync(lambda: pod.lines(event="serving"), timeout=60)
        (line,) = pod.lines(event="serving")
        host, _, port = line["address"].rpartition(":")
        assert host == listen.rpartition(":")[0]
        for reached in reached_at:
            pod.address = f"{reached}:{port}"
            pod.until_serving("scale")
            assert works(pod.address, yard)
        assert pod.stop() == 0


# As a hosts file does that has localhost twice.
TWO_LOCALHOSTS = """
import socket
resolve = socket.getaddrinfo
def resolved(host, *rest, **more):
    hosts = ["127.0.0.1", "::1"] if host == "localhost" else [host]
    return [found for one in hosts for found in resolve(one, *rest, **more)]
socket.getaddrinfo = resolved
"""


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6")
def test_it_listens_on_all_addresses_of_a_name(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(TWO_LOCALHOSTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with yard.pod("named", LISTEN="localhost:0") as pod:
        eventually_sync(lambda: pod.lines(event="serving"), timeout=60)
        host, _, port = pod.lines(event="serving")[0]["address"].rpartition(":")
        assert host == "localhost"
        for reached in ("127.0.0.1", "[::1]"):
            pod.address = f"{reached}:{port}"
            pod.until_serving("scale")
            assert works(pod.address, yard)
        assert pod.stop() == 0


def test_a_large_tensor_goes_in_and_out(pod: LaneProgram, yard: Yard) -> None:
    rows = np.arange(15_000_000, dtype=np.float32).reshape(-1, 2)  # 60 MB
    with sync_channel(pod.address, lambda: yard.identity.metadata("predictor")) as channel:
        answer = InferenceStub(channel).ModelInfer(infer_request("scale", {"x": rows}))
    assert np.array_equal(np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(-1, 2), rows * 2)


async def test_a_cancelled_prediction_is_given_up(pod: LaneProgram, yard: Yard) -> None:
    await asyncio.to_thread(pod.until_serving, "slow")
    async with aio_channel(pod.address, fixed_token(yard.identity.token())) as channel:
        stub = AioInferenceStub(channel)
        calls = [stub.ModelInfer(wide(512), metadata=(("x-request-id", f"gone-{number}"),)) for number in range(8)]
        await asyncio.wait([asyncio.ensure_future(calls[0])])
        for call in calls[1:]:
            call.cancel()

        async def noticed() -> bool:
            return bool(pod.lines(event="call", code="CANCELLED", request_id="gone-7"))

        await eventually(noticed)
        assert output(await stub.ModelInfer(infer_request("scale", row(1, 2)))) == [[2, 4]]


@asynccontextmanager
async def connected(pod: LaneProgram) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection."""
    reader, writer = await asyncio.open_unix_connection(pod.address.removeprefix("unix:"))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def hears(reader: asyncio.StreamReader) -> bool:
    """Whether a connection is taken: then the server speaks first."""
    async with asyncio.timeout(30):
        return await reader.read(1) != b""


async def test_one_connection_too_many_is_refused_until_another_closes(yard: Yard) -> None:
    async def connects(stack: AsyncExitStack) -> bool:
        reader, _ = await stack.enter_async_context(connected(pod))
        return await hears(reader)

    with yard.pod("narrow", MAX_CONNECTIONS="2") as pod:
        await asyncio.to_thread(pod.until_serving)
        async with AsyncExitStack() as some, AsyncExitStack() as others:
            for stack in (some, others):
                await eventually(lambda stack=stack: connects(stack))  # when those that asked for its health are closed
            assert not any([await connects(others) for _ in range(5)])
            await some.aclose()
            await eventually(lambda: connects(others))


NO_HTTP2 = {
    "HTTP/1.1": b"GET /metrics HTTP/1.1\r\nHost: pod\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303") + bytes(160),
    "noise": random.Random(1).randbytes(100_000),
    "noise behind the preface": PREFACE + random.Random(2).randbytes(100_000),
    "a frame that is too long": PREFACE + b"\xff\xff\xff\0\0\0\0\0\1",
    "headers on stream 0": PREFACE + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\1\1\5\0\0\0\0\x82",
}


@pytest.mark.parametrize("what", NO_HTTP2)
async def test_who_does_not_speak_http2_is_disconnected(pod: LaneProgram, yard: Yard, what: str) -> None:
    async with connected(pod) as (reader, writer):
        writer.write(NO_HTTP2[what])
        async with asyncio.timeout(30):
            with suppress(ConnectionError):  # it need not wait for the rest
                await reader.read()  # until the end
    assert await asyncio.to_thread(works, pod.address, yard)
    assert pod.lines(level="error") == []


async def test_who_vanishes_within_a_frame_is_forgotten(pod: LaneProgram, yard: Yard) -> None:
    begun = PREFACE + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\x40\1\4\0\0\0\1\x83\x86"
    for length in (0, 1, 10, len(PREFACE), len(PREFACE) + 5, len(begun)):
        async with connected(pod) as (reader, writer):
            writer.write(begun[:length])
            await writer.drain()
            assert await hears(reader)
    assert await asyncio.to_thread(works, pod.address, yard)
    assert pod.lines(level="error") == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"LISTEN": "somewhere"}, "expected host:port"),
        ({"DEVICE": "cuda"}, "computes nothing with CUDA here"),
        ({"LISTEN": "127.0.0.1:TAKEN"}, "cannot listen on 127.0.0.1:TAKEN: [Errno 98] Address already in use"),
        ({"LISTEN": "unix:/nowhere/pod.sock"}, "cannot listen on unix:/nowhere/pod.sock: [Errno 2]"),
        ({"ACCESS_LOG": "true"}, "the direct lane has no access log: that is Envoy's, on the express lane"),
        (
            {"TLS_CERTIFICATE_FILE": "CERTIFICATE", "TLS_KEY_FILE": "KEY"},
            "the direct lane has no TLS: that is Envoy's, on the express lane",
        ),
    ],
)
def test_what_cannot_start_says_why_and_ends(yard: Yard, settings: dict[str, str], said: str) -> None:
    certificate, key = self_signed(yard.folder)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stands_for = {"TAKEN": str(taken.getsockname()[1]), "CERTIFICATE": str(certificate), "KEY": str(key)}
        for word, meant in stands_for.items():
            settings = {name: value.replace(word, meant) for name, value in settings.items()}
            said = said.replace(word, meant)
        with yard.pod("broken", **settings) as pod:
            assert pod.process.wait(timeout=60) == 1
    assert said in pod.log_file.read_text()
    assert left_in(pod.log_file.parent) == []


NO_NGHTTP2 = "libnghttp2.so.14 is not installed (Debian: libnghttp2-14)"
WITHOUT_LIBRARY = "from pathlib import Path; from modelyard.http2 import library; library.LIBRARY = Path('/none')"


@pytest.mark.parametrize(("hidden", "missing"), [("library", NO_LIBRARY + "libraries"), ("nghttp2", NO_NGHTTP2)])
@pytest.mark.parametrize("lane", ["direct", "auto"])
def test_without_its_parts_the_lane_is_refused_or_done_without(
    yard: Yard, hidden: str, missing: str, lane: str, tmp_path: Path
) -> None:
    (tmp_path / "libnghttp2.so.14").touch()  # which the loader finds first, and cannot load
    if hidden == "library":
        done = yard.beginning(WITHOUT_LIBRARY, lane)
    else:
        done = yard.beginning("", lane, LD_LIBRARY_PATH=str(tmp_path))
    assert done.returncode == 1
    assert f"the direct lane cannot run here: {missing}" in done.stderr
    # With the express lane it goes on, as far as to look for the device.
    assert ("computes nothing with CUDA here" in done.stderr) == (lane == "auto")
    assert ('"level":"warning"' in done.stderr.replace(" ", "")) == (lane == "auto")
