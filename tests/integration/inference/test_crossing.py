"""How calls get into a pod on its quick lanes: bodies that come late or in parts, callers that leave, all at once."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import method_path
from support import graphs
from support.background import serve_in_background
from support.identity import Identity
from support.inference_pod import infer_request, output, row
from support.lane_program import LaneProgram, lane_program
from support.raw_grpc import RawConnection, raw_connection
from support.served_registry import ServedRegistry
from support.waiting import eventually

INFER = method_path("ModelInfer")
GRPC = (("te", "trailers"), ("content-type", "application/grpc"))
LIMIT_BYTES = 100_000
OK, DEADLINE_EXCEEDED, TOO_LARGE = 0, 4, 8


@dataclass(frozen=True)
class Pod:
    """A running pod, and how to call it."""

    program: LaneProgram
    lane: str
    token: str

    def headers(self, **more: str) -> list[tuple[str, str]]:
        """Those of a call."""
        given = [(name.replace("_", "-"), value) for name, value in more.items()]
        return [*GRPC, ("authorization", f"Bearer {self.token}"), *given]

    @property
    def resident_bytes(self) -> int:
        """Of the process that takes the calls: on the express lane, Envoy, which hosts Python."""
        serving = self.program.children if self.lane == "express" else [self.program.process.pid]
        return sum(psutil.Process(pid).memory_info().rss for pid in serving)


@pytest.fixture(scope="module", params=["express", "direct"])
def pod(request: pytest.FixtureRequest) -> Iterator[Pod]:
    lane = str(request.param)
    limit = {"MAX_REQUEST_BYTES": str(LIMIT_BYTES)}
    registry = ServedRegistry()
    registry.add("scale", graphs.scale(2))
    with tempfile.TemporaryDirectory(prefix="crossing-") as name:
        folder = Path(name)
        identity = Identity.create(folder)
        with (
            serve_in_background(registry.service(), identity, f"unix:{folder}/registry.sock") as served,
            lane_program(served.address, identity, folder / "pod", lane=lane, **limit) as program,
        ):
            program.until_serving("scale")
            yield Pod(program, lane, identity.token("predictor"))


def frame(*values: float) -> bytes:
    message = infer_request("scale", row(*values)).SerializeToString()
    return b"\0" + len(message).to_bytes(4, "big") + message


def answered(body: bytes) -> list[list[float]]:
    return output(pb.ModelInferResponse.FromString(body[5:]))


@pytest.mark.parametrize("deadline", [{}, {"grpc_timeout": "20S"}])
async def test_a_body_may_come_late_and_in_parts(pod: Pod, deadline: dict[str, str]) -> None:
    sent = frame(1, 2)
    async with raw_connection(pod.program.address) as connection:
        stream = await connection.start(INFER, pod.headers(**deadline))
        for at in range(0, len(sent), 7):
            await stream.send(sent[at : at + 7])
            await asyncio.sleep(0.01)
        await stream.send(b"", end=True)
        answer = await stream.result()
    assert answer.code == OK
    assert answered(answer.body) == [[2, 4]]


async def test_what_comes_after_its_deadline_is_ignored(pod: Pod) -> None:
    sent = frame(1, 2)
    async with raw_connection(pod.program.address) as connection:
        late = await connection.start(INFER, pod.headers(grpc_timeout="50m"))
        await late.send(sent[:20])
        assert (await late.result()).code == DEADLINE_EXCEEDED
        good = await connection.start(INFER, pod.headers(grpc_timeout="20S"))
        await good.send(sent, end=True)
        assert (await good.result()).code == OK


async def test_who_has_no_token_is_told_before_the_body_is_here(pod: Pod) -> None:
    async with raw_connection(pod.program.address) as connection:
        stream = await connection.start(INFER, [*GRPC, ("grpc-timeout", "20S")])
        assert (await stream.result()).code == 16


async def test_a_body_that_grows_too_large_is_refused_before_its_end(pod: Pod) -> None:
    announces_too_much = b"\0" + (LIMIT_BYTES + 1).to_bytes(4, "big")
    says_less_than_it_sends = b"\0" + (10).to_bytes(4, "big") + bytes(2 * LIMIT_BYTES)
    async with raw_connection(pod.program.address) as connection:
        for body, code in ((announces_too_much, TOO_LARGE), (says_less_than_it_sends, 3)):
            stream = await connection.start(INFER, pod.headers())
            await stream.send(body)
            assert (await stream.result()).code == code
        good = await connection.start(INFER, pod.headers())
        await good.send(frame(1, 2), end=True)
        assert (await good.result()).code == OK


async def test_a_caller_that_leaves_before_its_deadline_is_forgotten(pod: Pod) -> None:
    async with raw_connection(pod.program.address) as connection:
        stream = await connection.start(INFER, pod.headers(grpc_timeout="1H", x_request_id="left"))
        await stream.send(frame(1, 2)[:20])
        await asyncio.sleep(0.2)
        await stream.cancel()
        good = await connection.start(INFER, pod.headers())
        await good.send(frame(1, 2), end=True)
        assert (await good.result()).code == OK
    assert pod.program.lines(request_id="left") == []


async def test_a_call_that_is_cancelled_as_soon_as_it_has_come_leaves_nothing(pod: Pod) -> None:
    """Body and cancel reach the pod together, so that Python hears of both at once."""
    sent = frame(1, 2)

    async def storm_of_cancels() -> None:
        async with raw_connection(pod.program.address) as connection:
            for _ in range(40):
                streams = [await connection.start(INFER, pod.headers()) for _ in range(100)]
                for stream in streams:
                    connection.h2.send_data(stream.number, sent, end_stream=True)
                    connection.h2.reset_stream(stream.number, 8)
                await connection.flush()

    for _ in range(3):  # on busy cores it takes more than one until a pod has all the buffers that it needs
        await storm_of_cancels()
    before = pod.resident_bytes
    for _ in range(4):
        await storm_of_cancels()
    assert pod.resident_bytes - before < 12 << 20  # 16,000 calls with their headers and bodies would be more


async def _call_in_some_way(connection: RawConnection, pod: Pod, chance: random.Random) -> bool:
    """One call with a fate of its own. Whether it was a good one, whose answer was right."""
    value = float(chance.randrange(1000))
    sent = frame(value, 1)
    fate = chance.choice(["good", "good", "good", "parts", "cancelled", "half", "late", "soon", "vanished"])
    deadline = {"grpc_timeout": {"late": "20m", "soon": "1m"}.get(fate, "20S")} if chance.random() < 0.7 else {}
    if fate in ("late", "soon"):
        deadline = {"grpc_timeout": "20m" if fate == "late" else "1m"}
    stream = await connection.start(INFER, pod.headers(**deadline))
    if fate in ("half", "late", "vanished"):
        await stream.send(sent[: chance.randrange(len(sent))])
        if fate == "half":
            await asyncio.sleep(chance.random() * 0.02)
            await stream.cancel()
        elif fate == "late":
            assert (await stream.result()).code == DEADLINE_EXCEEDED
        return False
    if fate == "parts":
        cut = chance.randrange(len(sent))
        await stream.send(sent[:cut])
        await asyncio.sleep(chance.random() * 0.02)
        await stream.send(sent[cut:], end=True)
    else:
        await stream.send(sent, end=True)
    if fate == "cancelled":
        await stream.cancel()
        return False
    answer = await stream.result()
    if fate == "soon":
        assert answer.code in (OK, DEADLINE_EXCEEDED)
        return False
    assert answer.code == OK
    assert answered(answer.body) == [[2 * value, 2]]
    return True


async def _storm(pod: Pod, seed: int) -> int:
    """Many callers with all fates on a few connections, which then break. How many good calls were answered."""

    async def on_one_connection(number: int) -> int:
        chance = random.Random(seed * 100 + number)
        async with raw_connection(pod.program.address) as connection:
            calls = [_call_in_some_way(connection, pod, chance) for _ in range(400)]
            gate = asyncio.Semaphore(50)

            async def one(call: int) -> bool:
                async with gate:
                    return await calls[call]

            return sum(await asyncio.gather(*(one(number) for number in range(len(calls)))))

    return sum(await asyncio.gather(*(on_one_connection(number) for number in range(4))))


async def test_in_a_storm_of_callers_every_good_call_is_answered_and_nothing_is_kept(pod: Pod) -> None:
    assert await _storm(pod, 0) > 300
    before = pod.resident_bytes
    for seed in range(1, 4):
        assert await _storm(pod, seed) > 300
    assert pod.resident_bytes - before < 16 << 20

    async def calm() -> bool:
        async with raw_connection(pod.program.address) as connection:
            stream = await connection.start(INFER, pod.headers())
            await stream.send(frame(3, 1), end=True)
            return (await stream.result()).code == OK

    await eventually(calm)
    assert not [line for line in pod.program.lines() if line.get("level") in ("error", "critical")]
