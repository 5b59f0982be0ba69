"""The pod's lanes, as real processes, told the same things: they answer, refuse and log alike."""

from __future__ import annotations

import base64
import gzip
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from modelyard.core.errors import DETAILS_TRAILER
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import method_path
from support import graphs
from support.background import serve_in_background
from support.identity import Identity
from support.inference_pod import infer_request, row
from support.lane_program import LaneProgram, lane_program
from support.raw_grpc import RawAnswer, raw_connection
from support.served_registry import ServedRegistry
from support.waiting import eventually

INFER = method_path("ModelInfer")
QUICK_LANES = ("express", "direct")
LIMIT_BYTES = 1 << 20
GRPC = (("te", "trailers"), ("content-type", "application/grpc"))
OWN_TO_A_LINE = {"timestamp", "ms"}


@dataclass(frozen=True)
class Lanes:
    """All lanes with the same models."""

    programs: Mapping[str, LaneProgram]
    identity: Identity


@pytest.fixture(scope="module")
def lanes() -> Iterator[Lanes]:
    registry = ServedRegistry()
    registry.add("scale", graphs.scale(2))
    registry.add("broken", b"no graph at all")
    with tempfile.TemporaryDirectory(prefix="lanes-") as name:
        folder = Path(name)
        identity = Identity.create(folder)
        settings = {"MAX_REQUEST_BYTES": str(LIMIT_BYTES), "LOAD_RETRY_FIRST_S": "3600"}
        with (
            serve_in_background(registry.service(), identity, f"unix:{folder}/registry.sock") as served,
            lane_program(served.address, identity, folder / "express", lane="express", **settings) as express,
            lane_program(served.address, identity, folder / "direct", lane="direct", **settings) as direct,
            lane_program(served.address, identity, folder / "plain", lane="plain", **settings) as plain,
        ):
            for program in (express, direct, plain):
                program.until_serving("scale")
            yield Lanes({"express": express, "direct": direct, "plain": plain}, identity)


@dataclass(frozen=True)
class Said:
    """What a caller is told."""

    code: int | None
    text: str
    request_id: str | None
    details: Any
    body: bytes
    trailers_only: bool


def said(answer: RawAnswer) -> Said:
    details = answer.told.get(DETAILS_TRAILER)
    status = status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4))) if details else None
    text, request_id = answer.told.get("grpc-message", ""), answer.told.get("x-request-id")
    return Said(answer.code, text, request_id, unpacked(status), answer.body, answer.trailers_only)


def unpacked(status: status_pb2.Status | None) -> list[Any] | None:
    """Code, text and details, so that they compare: the same map may be packed in several ways."""
    if status is None:
        return None
    known = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
    details = []
    for packed in status.details:
        message = next(kind() for kind in known if packed.Is(kind.DESCRIPTOR))
        packed.Unpack(message)
        details.append(message)
    return [status.code, status.message, *details]


async def ask(program: LaneProgram, headers: Sequence[tuple[str, str]], *parts: bytes, end: bool = True) -> RawAnswer:
    async with raw_connection(program.address) as connection:
        stream = await connection.start(INFER, headers)
        for part in parts:
            await stream.send(part)
        await stream.send(b"", end=end)
        return await stream.result()


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


GOOD = infer_request("scale", row(1, 2)).SerializeToString()


def request(**changes: Any) -> bytes:
    """A frame with a request that differs from the good one."""
    message = infer_request(changes.pop("model", "scale"), row(1, 2), changes.pop("version", ""))
    for name, value in changes.items():
        setattr(message.inputs[0], name, value)
    return framed(message.SerializeToString())


def with_parameter(name: str, **value: Any) -> bytes:
    message = infer_request("scale", row(1, 2))
    for kind, content in value.items():
        setattr(message.parameters[name], kind, content)
    return framed(message.SerializeToString())


def without_raw() -> bytes:
    message = infer_request("scale", row(1, 2))
    del message.raw_input_contents[:]
    return framed(message.SerializeToString())


def twice() -> bytes:
    message = infer_request("scale", row(1, 2))
    message.inputs.append(message.inputs[0])
    message.raw_input_contents.append(message.raw_input_contents[0])
    return framed(message.SerializeToString())


def shaped(*shape: int) -> bytes:
    message = infer_request("scale", {"x": np.ones(shape, np.float32)})
    return framed(message.SerializeToString())


def outputs(*names: str) -> bytes:
    message = infer_request("scale", row(1, 2))
    message.outputs.extend(pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names)
    return framed(message.SerializeToString())


CASES: dict[str, tuple[int, dict[str, str], list[bytes]]] = {
    "valid": (0, {}, [framed(GOOD)]),
    "valid, in parts": (0, {}, [framed(GOOD)[:3], framed(GOOD)[3:20], framed(GOOD)[20:]]),
    "valid, with a deadline": (0, {"grpc-timeout": "20S"}, [framed(GOOD)]),
    "valid, with another content-type": (0, {"content-type": "application/grpc+proto"}, [framed(GOOD)]),
    "gzip": (0, {"grpc-encoding": "gzip"}, [framed(gzip.compress(GOOD, mtime=0), 1)]),
    "deflate": (0, {"grpc-encoding": "deflate"}, [framed(zlib.compress(GOOD), 1)]),
    "an encoding that is not used": (0, {"grpc-encoding": "gzip"}, [framed(GOOD)]),
    "text": (0, {"content-type": "text/plain"}, [framed(GOOD)]),
    "unknown model": (5, {}, [request(model="nobody")]),
    "unknown version": (5, {}, [request(version="7")]),
    "wrong version": (3, {}, [request(version="../1")]),
    "not loaded": (14, {}, [request(model="broken")]),
    "unknown input": (3, {}, [request(name="z")]),
    "wrong datatype": (3, {}, [request(datatype="FP64")]),
    "wrong shape": (3, {}, [shaped(1, 3)]),
    "input twice": (3, {}, [twice()]),
    "missing contents": (3, {}, [without_raw()]),
    "batch too large": (3, {}, [shaped(1025, 2)]),
    "unknown output": (3, {}, [outputs("y", "ä")]),
    "reserved parameter": (3, {}, [with_parameter("triton_enable_all", bool_param=True)]),
    "wrong timeout": (3, {}, [with_parameter("timeout", string_param="soon")]),
    "free parameter": (0, {}, [with_parameter("colour", string_param="red")]),
    "no protobuf": (3, {}, [framed(b"\xff\xff\xff")]),
    "empty message": (5, {}, [framed(b"")]),
    "too large": (8, {}, [framed(bytes(LIMIT_BYTES + 1))]),
    "no token": (16, {"authorization": ""}, [framed(GOOD)]),
    "no token of ours": (16, {"authorization": "Bearer eyJ.a.b"}, [framed(GOOD)]),
    "no bearer token": (16, {"authorization": "Basic eA=="}, [framed(GOOD)]),
    "an expired token": (16, {"authorization": "EXPIRED"}, [framed(GOOD)]),
    "a token without the right": (7, {"authorization": "WORKER"}, [framed(GOOD)]),
}


def headers_of(lanes: Lanes, wanted: Mapping[str, str], request_id: str) -> list[tuple[str, str]]:
    """The headers of a call by a predictor, unless other ones are wanted."""
    tokens = {
        "EXPIRED": f"Bearer {lanes.identity.token('predictor', lifetime_s=-60)}",
        "WORKER": f"Bearer {lanes.identity.token('worker')}",
    }
    found = {
        **dict(GRPC), "authorization": f"Bearer {lanes.identity.token('predictor')}", "x-request-id": request_id,
        **{key: tokens.get(value, value) for key, value in wanted.items()},
    }  # fmt: skip
    return [(key, value) for key, value in found.items() if value]


async def logged(program: LaneProgram, request_id: str, count: int) -> list[dict[str, Any]]:
    """The lines with this request id, less what is a line's own."""

    async def there() -> list[dict[str, Any]] | None:
        found = program.lines(request_id=request_id)
        return found if len(found) >= count else None

    lines = await eventually(there) if count else program.lines(request_id=request_id)
    return [{key: value for key, value in line.items() if key not in OWN_TO_A_LINE} for line in lines]


@pytest.mark.parametrize("name", CASES)
async def test_all_lanes_say_the_same(lanes: Lanes, name: str) -> None:
    code, wanted, parts = CASES[name]
    request_id = name.replace(" ", "-").replace(",", "")
    headers = headers_of(lanes, wanted, request_id)
    answers, lines = {}, {}
    for lane, program in lanes.programs.items():
        answers[lane] = said(await ask(program, headers, *parts))
        lines[lane] = await logged(program, request_id, 1 if code else 0)
    plain = answers["plain"]
    assert plain.code == code
    assert (plain.request_id == request_id, plain.trailers_only) == (code != 0, code != 0)
    assert [line["event"] for line in lines["plain"]] == (["call"] if code else [])
    for lane in QUICK_LANES:
        assert answers[lane] == plain
        assert lines[lane] == lines["plain"]


# What is no gRPC at all never reaches our code on the plain lane: gRPC's library answers, or does not. The others tell
# the caller what is wrong.
BROKEN: dict[str, tuple[int, dict[str, str], list[bytes]]] = {
    "empty body": (3, {}, []),
    "half a prefix": (3, {}, [b"\0\0"]),
    "half a message": (3, {}, [framed(GOOD)[:30]]),
    "more than a message": (3, {}, [framed(GOOD) + b"xx"]),
    "compressed with nothing": (3, {}, [framed(GOOD, 1)]),
    "no flag": (3, {}, [framed(GOOD, 7)]),
    "unknown encoding": (12, {"grpc-encoding": "snappy"}, [framed(GOOD, 1)]),
    "no gzip": (3, {"grpc-encoding": "gzip"}, [framed(GOOD, 1)]),
    "half a gzip": (3, {"grpc-encoding": "gzip"}, [framed(gzip.compress(GOOD)[:-12], 1)]),
    "a bomb": (8, {"grpc-encoding": "gzip"}, [framed(gzip.compress(bytes(LIMIT_BYTES * 20)), 1)]),
    "no timeout": (3, {"grpc-timeout": "soon"}, [framed(GOOD)]),
    "no time at all": (4, {"grpc-timeout": "1n"}, [framed(GOOD)]),
}


@pytest.mark.parametrize("lane", QUICK_LANES)
@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_no_grpc_is_refused_with_a_reason(lanes: Lanes, name: str, lane: str) -> None:
    code, wanted, parts = BROKEN[name]
    answer = said(await ask(lanes.programs[lane], headers_of(lanes, wanted, "broken"), *parts))
    assert (answer.code, answer.trailers_only, answer.body) == (code, True, b"")
    assert answer.details is not None
    assert answer.details[1] == unquote(answer.text) != ""


@pytest.mark.parametrize("lane", QUICK_LANES)
async def test_a_caller_that_vanishes_in_the_middle_leaves_no_trace(lanes: Lanes, lane: str) -> None:
    program = lanes.programs[lane]
    async with raw_connection(program.address) as connection:
        stream = await connection.start(INFER, headers_of(lanes, {}, "vanished"))
        await stream.send(framed(GOOD)[:30])
        await stream.cancel()
    answer = await ask(program, headers_of(lanes, {}, "after-the-vanished"), framed(GOOD))
    assert answer.code == 0
    assert program.lines(request_id="vanished") == []


async def test_a_body_that_does_not_come_is_waited_for_until_the_deadline(lanes: Lanes) -> None:
    for program in lanes.programs.values():
        async with raw_connection(program.address) as connection:
            stream = await connection.start(INFER, headers_of(lanes, {"grpc-timeout": "200m"}, "never"))
            await stream.send(framed(GOOD)[:30])
            assert (await stream.result()).code == 4
