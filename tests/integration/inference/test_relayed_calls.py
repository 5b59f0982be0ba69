"""Calls that the direct lane relays to gRPC's own server: they arrive, and end, as they do without anybody between."""

from __future__ import annotations

import asyncio
import base64
import gzip
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass

import grpc
import grpc.aio
import numpy as np
import psutil
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from modelyard.core.channels import aio_channel, fixed_token, sync_channel
from modelyard.core.errors import DETAILS_TRAILER
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import SERVICE_NAME, AioInferenceStub, InferenceStub, method_path
from support.inference_pod import infer_request, output, row
from support.lane_program import LaneProgram, lane_program
from support.lane_yard import Yard, lane_yard
from support.raw_grpc import RawAnswer, RawConnection, raw_connection
from support.waiting import eventually

WATCH = "/grpc.health.v1.Health/Watch"
STREAM = method_path("ModelStreamInfer")
LIMIT_BYTES = 32 << 20
CANCEL = 8


@dataclass(frozen=True)
class Pods:
    """The same pod with and without something before gRPC's server."""

    yard: Yard
    direct: LaneProgram
    plain: LaneProgram

    def headers(self, more: Mapping[str, str]) -> list[tuple[str, str]]:
        """Those of an administrator's call, and more."""
        given = {"te": "trailers", "content-type": "application/grpc", "authorization": f"Bearer {self.token}"}
        return [*{**given, **more}.items()]

    @property
    def token(self) -> str:
        """That may do everything."""
        return self.yard.identity.token("admin")


@pytest.fixture(scope="module")
def pods() -> Iterator[Pods]:
    settings = {"MAX_REQUEST_BYTES": str(LIMIT_BYTES), "MAX_BATCH_SIZE": str(1 << 24), "STREAM_REQUESTS": "4"}
    with (
        lane_yard("direct") as yard,
        yard.pod("direct", **settings) as direct,
        lane_program(yard.registry, yard.identity, yard.folder / "plain", lane="plain", **settings) as plain,
    ):
        for program in (direct, plain):
            program.until_serving()
        yield Pods(yard, direct, plain)


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def metadata_of(model: str) -> bytes:
    return pb.ModelMetadataRequest(name=model).SerializeToString()


# What is asked, with which headers, and the code of the answer.
CASES: dict[str, tuple[str, dict[str, str], bytes, int]] = {
    "no fields": (method_path("ServerMetadata"), {}, framed(b""), 0),
    "a model": (method_path("ModelMetadata"), {}, framed(metadata_of("scale")), 0),
    "compressed": (
        method_path("ModelMetadata"), {"grpc-encoding": "gzip", "grpc-accept-encoding": "identity,gzip"},
        framed(gzip.compress(metadata_of("scale"), mtime=0), 1), 0,
    ),
    "details": (method_path("ModelMetadata"), {}, framed(metadata_of("nobody")), 5),
    "a text that is no ASCII": (method_path("ModelMetadata"), {}, framed(metadata_of("ä %20 ✓")), 5),
    "no token": (method_path("RepositoryIndex"), {"authorization": "Bearer x"}, framed(b""), 16),
    "no protobuf": (method_path("ModelMetadata"), {}, framed(b"\xff\xff"), 3),
    "no method": (method_path("Nothing"), {}, framed(b""), 12),
    "no service": ("/nothing.Nothing/Nothing", {}, framed(b""), 12),
    "a stream of one": (STREAM, {}, framed(infer_request("scale", row(1, 2)).SerializeToString()), 0),
    "a stream of none": (STREAM, {}, b"", 0),
    "a stream that ends with an error": (
        STREAM, {"triton_grpc_error": "true"}, framed(pb.ModelInferRequest(model_name="nobody").SerializeToString()), 5,
    ),
    "much metadata": (method_path("ServerLive"), {f"x-{number}": "v" * 400 for number in range(12)}, framed(b""), 0),
    "too much metadata": (method_path("ServerLive"), {"x-large": "v" * 60_000}, framed(b""), 8),
    "no time": (WATCH, {"grpc-timeout": "200m"}, framed(b""), 4),
}  # fmt: skip


async def asked(program: LaneProgram, pods: Pods, case: str) -> RawAnswer:
    path, headers, body, _ = CASES[case]
    async with raw_connection(program.address) as connection:
        stream = await connection.start(path, pods.headers({"x-request-id": "request-7", **headers}))
        await stream.send(body, end=True)
        return await stream.result()


def details_of(answer: RawAnswer) -> list[object]:
    """Taken out of an answer, so that they compare: the same map may be packed in several ways."""
    packed = answer.told.pop(DETAILS_TRAILER, None)
    if packed is None:
        return []
    status = status_pb2.Status.FromString(base64.b64decode(packed + "=" * (-len(packed) % 4)))
    info = error_details_pb2.ErrorInfo()
    assert [detail.Unpack(info) for detail in status.details] == [True]
    return [status.code, status.message, info]


@pytest.mark.parametrize("case", CASES)
async def test_a_call_is_answered_as_on_the_plain_lane(pods: Pods, case: str) -> None:
    relayed, plain = await asked(pods.direct, pods, case), await asked(pods.plain, pods, case)
    assert details_of(relayed) == details_of(plain)
    assert relayed == plain
    assert plain.code == CASES[case][3]


async def test_a_stream_ends_at_its_deadline_as_on_the_plain_lane(pods: Pods) -> None:
    async def without_end(program: LaneProgram) -> RawAnswer:
        async with raw_connection(program.address) as connection:
            stream = await connection.start(STREAM, pods.headers({"grpc-timeout": "500m"}))
            await stream.send(framed(infer_request("scale", row(1, 2)).SerializeToString()))
            return await stream.result()

    relayed, plain = await without_end(pods.direct), await without_end(pods.plain)
    assert relayed == plain
    assert plain.code == 4


def test_stock_clients_of_other_services_are_answered(pods: Pods) -> None:
    with sync_channel(pods.direct.address, lambda: pods.yard.identity.metadata("admin")) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(service="scale")).status == 1
        assert next(health.Watch(health_pb2.HealthCheckRequest(service="scale"))).status == 1
        found = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel)).FindServiceByName(
            SERVICE_NAME
        )
        assert "ModelInfer" in found.methods_by_name
        assert InferenceStub(channel).ServerMetadata(pb.ServerMetadataRequest()).name == "modelyard"


def test_compressed_calls_are_relayed_as_they_are(pods: Pods) -> None:
    with sync_channel(pods.direct.address, lambda: pods.yard.identity.metadata("admin")) as channel:
        stub = InferenceStub(channel)
        zeros = infer_request("scale", {"x": np.zeros((100_000, 2), np.float32)})
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            replies = list(stub.ModelStreamInfer(iter([zeros] * 5), compression=compression))
            assert [len(reply.infer_response.raw_output_contents[0]) for reply in replies] == [800_000] * 5


async def test_thousands_of_messages_of_one_stream_keep_their_order(pods: Pods) -> None:
    requests = [infer_request("scale", row(number, 1)) for number in range(2000)]
    async with aio_channel(pods.direct.address, fixed_token(pods.token)) as channel:
        replies = [reply async for reply in AioInferenceStub(channel).ModelStreamInfer(iter(requests))]
    assert [output(reply.infer_response)[0][0] for reply in replies] == [2 * number for number in range(2000)]


async def test_large_messages_of_several_streams_go_both_ways(pods: Pods) -> None:
    """Each longer than a stream's window, and all together than a connection's."""
    sizes = [700_000, 1, 2_000_000, 3, 1_300_000, 900_000]  # rows of 8 bytes

    async def converse(stub: AioInferenceStub, factor: int) -> None:
        tensors = [np.arange(2 * size, dtype=np.float32).reshape(-1, 2) * factor for size in sizes]
        requests = (infer_request("scale", {"x": tensor}) for tensor in tensors)
        replies = [reply.infer_response async for reply in stub.ModelStreamInfer(requests)]
        for tensor, reply in zip(tensors, replies, strict=True):
            assert reply.raw_output_contents[0] == (tensor * 2).tobytes()

    async with aio_channel(pods.direct.address, fixed_token(pods.token)) as channel:
        await asyncio.gather(*(converse(AioInferenceStub(channel), factor) for factor in (1, 2, 3)))


async def succeeded(stub: AioInferenceStub, model: str) -> int:
    """How many predictions of the model the pod has computed."""
    (one,) = (await stub.ModelStatistics(pb.ModelStatisticsRequest(name=model))).model_stats
    return one.inference_stats.success.count


async def until_it_stands_still(stub: AioInferenceStub, interval: float) -> None:
    """Returns when no further predictions of the model `scale` are computed in so many seconds."""
    seen = -1

    async def stands_still() -> bool:
        nonlocal seen
        last, seen = seen, await succeeded(stub, "scale")
        return last == seen

    await eventually(stands_still, interval=interval)


async def test_streams_that_nobody_reads_hold_up_nobody_else_and_not_much_memory(pods: Pods) -> None:
    large = infer_request("scale", {"x": np.ones((130_000, 2), np.float32)})  # 1 MB
    process = psutil.Process(pods.direct.process.pid)

    async def endless() -> AsyncIterator[pb.ModelInferRequest]:
        while True:
            yield large

    async with aio_channel(pods.direct.address, fixed_token(pods.token)) as channel:
        stub = AioInferenceStub(channel)
        before = process.memory_info().rss
        unread = [stub.ModelStreamInfer(endless()) for _ in range(10)]
        for stream in unread:
            await stream.read()
        await until_it_stands_still(stub, interval=0.5)
        assert process.memory_info().rss - before < 800 << 20  # without bounds it would not stand still
        for _ in range(3):
            assert output(await stub.ModelInfer(infer_request("scale", row(1, 2)), timeout=20)) == [[2, 4]]
            assert (await stub.ServerLive(pb.ServerLiveRequest(), timeout=20)).live
            reply = await anext(aiter(stub.ModelStreamInfer(iter([large]), timeout=20)))
            assert len(reply.infer_response.raw_output_contents[0]) == 8 * 130_000
        for stream in unread:
            stream.cancel()


async def test_a_stream_that_was_not_read_for_a_while_goes_on(pods: Pods) -> None:
    requests = [infer_request("scale", {"x": np.full((130_000, 2), number, np.float32)}) for number in range(40)]
    async with aio_channel(pods.direct.address, fixed_token(pods.token)) as channel:
        stub = AioInferenceStub(channel)
        stream = stub.ModelStreamInfer(iter(requests))
        await until_it_stands_still(stub, interval=0.3)
        first = [output(reply.infer_response)[0][0] async for reply in stream]
    assert first == [2 * number for number in range(40)]


async def logged(program: LaneProgram, request_id: str) -> Mapping[str, str]:
    """The line of a call."""

    async def there() -> list[dict[str, str]]:
        return program.lines(event="call", request_id=request_id)

    (line,) = await eventually(there)
    return line


@pytest.mark.parametrize("how", ["cancelled", "disconnected", "out of time"])
async def test_the_servicer_hears_that_nobody_waits_any_more(pods: Pods, how: str) -> None:
    request_id = how.replace(" ", "-")
    deadline = {"grpc-timeout": "300m"} if how == "out of time" else {}
    async with raw_connection(pods.direct.address) as connection:
        watch = await connection.start(WATCH, pods.headers({"x-request-id": request_id, **deadline}))
        await watch.send(framed(b""), end=True)

        async def told() -> bool:
            return watch.answer.body != b""

        await eventually(told)
        if how == "cancelled":
            await watch.cancel()
        elif how == "out of time":
            assert (await watch.result()).code == 4
        if how != "disconnected":
            assert (await logged(pods.direct, request_id))["code"] == "CANCELLED"
    assert (await logged(pods.direct, request_id))["code"] == "CANCELLED"


async def test_nonsense_in_the_headers_of_one_caller_spoils_no_call_of_others(pods: Pods) -> None:
    """All share the connection to gRPC's server, which keeps headers, and what was wrong with them, for later ones."""

    async def code(header: str, value: str) -> int | None:
        async with raw_connection(pod.address) as connection:
            stream = await connection.start(method_path("ServerLive"), pods.headers({header: value}))
            await stream.send(framed(b""), end=True)
            return (await stream.result()).code

    headers = {"grpc-timeout": ("soon", "31S"), "grpc-encoding": ("snappy", "gzip"), "x-a-bin": ("%%%%", "aGFsbG8")}
    with pods.yard.pod("spoiled") as pod:  # of its own: gRPC's complaints are no JSON
        await asyncio.to_thread(pod.until_serving)
        for header, (nonsense, good) in headers.items():
            assert await code(header, nonsense) == 13
            assert [await code(header, good) for _ in range(2)] == [0, 0], header


async def one_call(connection: RawConnection, pods: Pods, chance: random.Random) -> bool:
    """A call with a fate of its own. Whether it was a good one, whose answer was right."""
    value = float(chance.randrange(1000))
    message: Message = infer_request("scale", row(value, 1))
    path = chance.choice([STREAM, STREAM, method_path("ServerLive"), WATCH])
    if path != STREAM:
        message = pb.ServerLiveRequest()
    sent = framed(message.SerializeToString())
    fate = chance.choice(["good", "good", "parts", "cancelled", "half", "late", "reset at once"])
    stream = await connection.start(path, pods.headers({"grpc-timeout": "5m"} if fate == "late" else {}))
    if fate == "reset at once":
        connection.h2.send_data(stream.number, sent, end_stream=True)
        connection.h2.reset_stream(stream.number, CANCEL)
        await connection.flush()
        return False
    if fate in ("half", "late"):
        await stream.send(sent[: chance.randrange(len(sent))])
        if fate == "half":
            await stream.cancel()
        else:
            await stream.result()
        return False
    cut = chance.randrange(len(sent)) if fate == "parts" else 0
    await stream.send(sent[:cut])
    await asyncio.sleep(chance.random() * 0.01)
    await stream.send(sent[cut:], end=True)
    if fate == "cancelled" or path == WATCH:
        await asyncio.sleep(chance.random() * 0.01)
        if not stream.ended.is_set():
            await stream.cancel()
        return False
    answer = await stream.result()
    assert answer.code == 0
    if path == STREAM:
        response = pb.ModelStreamInferResponse.FromString(answer.body[5:]).infer_response
        assert output(response) == [[2 * value, 2]]
    return True


async def storm(pods: Pods, seed: int) -> int:
    """Many calls with all fates on a few connections, which then break. How many good ones were answered."""

    async def on_one_connection(number: int) -> int:
        chance = random.Random(100 * seed + number)
        gate = asyncio.Semaphore(40)
        async with raw_connection(pods.direct.address) as connection:

            async def one() -> bool:
                async with gate:
                    return await one_call(connection, pods, chance)

            return sum(await asyncio.gather(*(one() for _ in range(200))))

    return sum(await asyncio.gather(*(on_one_connection(number) for number in range(3))))


async def test_in_a_storm_of_callers_every_good_call_is_answered_and_nothing_is_kept(pods: Pods) -> None:
    process = psutil.Process(pods.direct.process.pid)
    assert await storm(pods, 0) > 50
    before = process.memory_info().rss
    for seed in range(1, 4):
        assert await storm(pods, seed) > 50
    assert process.memory_info().rss - before < 16 << 20
    with sync_channel(pods.direct.address, lambda: pods.yard.identity.metadata("admin")) as channel:
        assert InferenceStub(channel).ServerLive(pb.ServerLiveRequest()).live
    # gRPC itself says of a cancelled stream that it could not write to it.
    wrong = [line for line in pods.direct.lines() if line.get("level") in ("error", "critical")]
    assert [line for line in wrong if not line.get("logger", "").startswith("grpc.")] == []
