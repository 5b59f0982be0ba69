"""Below the messages: bytes that are none, fields that are unknown, sizes, compression, methods that there are not."""

from __future__ import annotations

import random
from typing import Final

import grpc
import numpy as np

from modelyard.conformance.answers import UNIMPLEMENTED
from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Level, check
from modelyard.conformance.subject import arrays_of
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import method_path

_UNKNOWN_FIELD: Final = b"\xfa\x7f\x03abc"
"""Field 2047, three bytes."""
_MIB: Final = 2**20
_MUTATIONS: Final = 100


@check("wire.unknown_field", Level.REQUIRED)
def unknown_field(probe: Probe) -> None:
    """A field that the server does not know is ignored. (Protobuf: unknown fields.)"""
    probe.call("ModelInfer", probe.subject.request().SerializeToString() + _UNKNOWN_FIELD).ok(pb.ModelInferResponse)


@check("wire.malformed", Level.REQUIRED)
def malformed(probe: Probe) -> None:
    """Bytes that are no message are refused. (gRPC: the request cannot be parsed.)"""
    probe.call("ModelInfer", b"\xff\xff\xff").refused()


@check("wire.cut_off", Level.REQUIRED)
def cut_off(probe: Probe) -> None:
    """A message that was cut off is refused. (gRPC: the request cannot be parsed.)"""
    probe.call("ModelInfer", probe.subject.request().SerializeToString()[:-3]).refused()


@check("wire.empty", Level.REQUIRED)
def empty(probe: Probe) -> None:
    """No bytes at all are a request without a model, and refused. (Protobuf: an empty message is valid.)"""
    probe.call("ModelInfer", b"").refused()


@check("wire.unknown_method", Level.REQUIRED)
def unknown_method(probe: Probe) -> None:
    """A method that the service does not have is UNIMPLEMENTED. (gRPC: status codes.)"""
    probe.notes.sent = "ConformanceNoSuchMethod"
    probe.call_path(method_path("ConformanceNoSuchMethod"), b"").has_code(UNIMPLEMENTED)


@check("wire.mutations", Level.REQUIRED)
def mutations(probe: Probe) -> None:
    """A hundred valid requests with one to four bytes changed or cut: each is answered or refused, none hangs or kills
    the server, and the next good request is answered. (Any client may send anything.)
    """
    valid = probe.subject.request().SerializeToString()
    chance = random.Random(20261123)  # noqa: S311 - the same mutations in every run
    for _ in range(_MUTATIONS):
        answer = probe.call("ModelInfer", _mutate(valid, chance))
        if answer.code is not grpc.StatusCode.OK:
            answer.refused()
    probe.infer(probe.subject.request()).ok(pb.ModelInferResponse)


def _mutate(valid: bytes, chance: random.Random) -> bytes:
    changed = bytearray(valid)
    for _ in range(chance.randint(1, 4)):
        position = chance.randrange(len(changed))
        if chance.random() < 0.7:
            changed[position] = chance.randrange(256)
        else:
            del changed[position : position + chance.randint(1, 8)]
        changed = changed or bytearray(b"\0")
    return bytes(changed)


@check("wire.gzip", Level.REQUIRED)
def gzip(probe: Probe) -> None:
    """A request compressed with gzip is answered. (gRPC: compression.)"""
    answer = probe.infer(probe.subject.request(), compression=grpc.Compression.Gzip)
    answer.ok(pb.ModelInferResponse)


def _large(probe: Probe, mebibytes: int, **options: object) -> None:
    model = probe.reference("identity_fp32")
    x = np.arange(mebibytes * _MIB // 4, dtype=np.float32).reshape(1, -1)
    answer = probe.infer(model.with_arrays(x=x), **options).ok(pb.ModelInferResponse)
    y = arrays_of(answer, probe.notes)["y"]
    probe.notes.expect_so(bool(np.array_equal(x, y)), f"{x.nbytes} bytes back", f"{y.nbytes} bytes, other values")


@check("wire.5_mib", Level.TRITON)
def five_mib(probe: Probe) -> None:
    """5 MiB go in and come out: gRPC's default limit of 4 MiB is raised. (Triton; reference model `identity_fp32`.)"""
    _large(probe, 5)


@check("wire.40_mib", Level.TRITON)
def forty_mib(probe: Probe) -> None:
    """40 MiB go in and come out. (Triton: up to 2 GiB; reference model `identity_fp32`.)"""
    _large(probe, 40)


@check("wire.5_mib_gzip", Level.RECOMMENDED)
def five_mib_gzip(probe: Probe) -> None:
    """5 MiB, compressed with gzip, go in and come out. (Triton does; reference model `identity_fp32`.)"""
    _large(probe, 5, compression=grpc.Compression.Gzip)
