"""Thousands of random mutations of valid requests: no crash, no hang, no wrong answer, no memory lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError

from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES
from support.mutations import flip, mutate
from support.prediction_bench import OUTPUTS, REGION, PredictionBench, good_request

TEXTS = [
    "", "m", "1", "live", "f", "n", "t", "x", "\0", "m" * 300, REGION, *OUTPUTS, *DATATYPES, "fp32",
    "timeout", "priority", "classification", "sequence_id", "headers", "provenance", "triton_x",
    "triton_enable_empty_final_response", "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size",
]  # fmt: skip


def raw() -> pb.ModelInferRequest:
    return good_request()


def typed() -> pb.ModelInferRequest:
    request = good_request()
    del request.raw_input_contents[:]
    floats, numbers, words = request.inputs
    floats.contents.fp32_contents.extend([1, 2, 3, 4])
    numbers.contents.int_contents.extend([5, 6])
    words.contents.bytes_contents.extend([b"a", "é".encode()])
    return request


def with_everything() -> pb.ModelInferRequest:
    """One input and one output in shared memory, another output as classes, parameters of every kind."""
    request = good_request()
    place = request.inputs[0].parameters
    place["shared_memory_region"].string_param = REGION
    place["shared_memory_byte_size"].int64_param = 16
    del request.raw_input_contents[0]
    request.outputs.add(name="f_out").parameters["classification"].int64_param = 2
    place = request.outputs.add(name="n_out").parameters
    place["shared_memory_region"].string_param = REGION
    place["shared_memory_offset"].int64_param = 128
    place["shared_memory_byte_size"].int64_param = 8
    request.outputs.add(name="t_out")
    request.parameters["priority"].uint64_param = 2
    request.parameters["timeout"].int64_param = 60_000_000
    request.parameters["sequence_id"].int64_param = 1
    request.parameters["provenance"].bool_param = True
    return request


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PredictionBench]:
    with asyncio.Runner() as runner:
        bench = PredictionBench(runner, tmp_path_factory.mktemp("bench"))
        yield bench
        bench.close()


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def mutated(chance: random.Random, start: Callable[[], pb.ModelInferRequest]) -> pb.ModelInferRequest | None:
    """A valid request with one to three changes to its fields, or to its wire form; None if that is no message."""
    request = start()
    if chance.random() < 0.3:
        try:
            return pb.ModelInferRequest.FromString(flip(chance, request.SerializeToString()))
        except DecodeError:
            return None  # answered MALFORMED_CONTENT before it comes to the predictor
    for _ in range(chance.randint(1, 3)):
        mutate(chance, request, TEXTS)
    return request


@pytest.mark.parametrize("start", [raw, typed, with_everything])
def test_what_is_mutated_is_right_to_begin_with(
    bench: PredictionBench, start: Callable[[], pb.ModelInferRequest]
) -> None:
    bench.refill()
    assert bench.check(start())


@pytest.mark.parametrize("mutations", [2_000, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_mutated_requests_are_answered_rightly_or_refused_with_the_field(
    bench: PredictionBench, mutations: int
) -> None:
    chance = random.Random(mutations)
    answered, refused, settled = 0, 0, 0
    for number in range(mutations):
        if number == mutations // 2:
            settled = resident_bytes()
        request = mutated(chance, chance.choice((raw, typed, with_everything)))
        if request is None:
            continue
        if request.outputs:
            bench.refill()  # one of them may have been written into the region
        try:
            well = bench.check(request)
        except BaseException as error:
            error.add_note(f"mutation {number}: {request}")
            raise
        answered, refused = answered + well, refused + (not well)
    assert answered > mutations / 20
    assert refused > mutations / 3
    assert resident_bytes() - settled < 16 * 1024 * 1024
    assert bench.check(good_request())
