"""Requests that were bent at random: computed rightly or refused with the field at fault, never anything else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES
from modelyard.oip.tensors import output_arrays
from support.prediction_bench import PredictionBench, good_request


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PredictionBench]:
    with asyncio.Runner() as runner:
        bench = PredictionBench(runner, tmp_path_factory.mktemp("bench"))
        yield bench
        bench.close()


NAMES = st.sampled_from(["f", "n", "t", "f_out", "n_out", "t_out", "", "x", "\0", "triton_x", "timeout", "m" * 500])
DIMENSIONS = st.one_of(st.integers(-2, 4), st.sampled_from([2**31, 2**62, -(2**63), 9]))
PARAMETER = st.builds(
    pb.InferParameter,
    int64_param=st.integers(-1, 10**12),
) | st.builds(pb.InferParameter, string_param=st.text(max_size=5))


def bend_name(data: st.DataObject, request: pb.ModelInferRequest) -> None:
    request.inputs[data.draw(st.integers(0, 2))].name = data.draw(NAMES)


def bend_model(data: st.DataObject, request: pb.ModelInferRequest) -> None:
    request.model_name = data.draw(st.sampled_from(["m", "M", "", "../m"]))
    request.model_version = data.draw(st.sampled_from(["", "1", "2", "live", "x", "-1", "9" * 30]))


def bend_datatype(data: st.DataObject, request: pb.ModelInferRequest) -> None:
    request.inputs[data.draw(st.integers(0, 2))].datatype = data.draw(st.sampled_from([*DATATYPES, "", "fp32"]))


def bend_shape(data: st.DataObject, request: pb.ModelInferRequest) -> None:
    request.inputs[data.draw(st.integers(0, 2))].shape[:] = data.draw(st.lists(DIMENSIONS, max_size=4))


def bend_raw(data: st.DataObject, request: pb.ModelInferRequest) -> None:
    request.raw_input_contents[data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=24))


def bend_raw_count(data: st.DataObject, request: pb.ModelInferRequest) -> None:
    contents = [*request.raw_input_contents, b"more"]
    request.raw_input_contents[:] = contents[: data.draw(st.integers(0, 4))]


def bend_contents(data: st.DataObject, request: pb.ModelInferRequest) -> None:
    contents = request.inputs[data.draw(st.integers(0, 2))].contents
    contents.int_contents.extend(data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4)))
    contents.fp32_contents.extend(data.draw(st.lists(st.floats(width=32), max_size=4)))
    contents.bytes_contents.extend(data.draw(st.lists(st.binary(max_size=4), max_size=3)))


def bend_inputs(data: st.DataObject, request: pb.ModelInferRequest) -> None:
    order = data.draw(st.lists(st.integers(0, 2), max_size=4))
    chosen = [request.inputs[index] for index in order]
    copies = [pb.ModelInferRequest.InferInputTensor.FromString(tensor.SerializeToString()) for tensor in chosen]
    raws = [request.raw_input_contents[index] for index in order]
    del request.inputs[:]
    request.inputs.extend(copies)
    request.raw_input_contents[:] = raws


def bend_outputs(data: st.DataObject, request: pb.ModelInferRequest) -> None:
    for name in data.draw(st.lists(NAMES, max_size=3)):
        request.outputs.add(name=name)


def bend_parameters(data: st.DataObject, request: pb.ModelInferRequest) -> None:
    request.parameters[data.draw(NAMES)].CopyFrom(data.draw(PARAMETER))


BENDS = [
    bend_name, bend_model, bend_datatype, bend_shape, bend_raw, bend_raw_count, bend_contents, bend_inputs,
    bend_outputs, bend_parameters,
]  # fmt: skip


@given(st.data(), st.lists(st.sampled_from(BENDS), min_size=1, max_size=3))
@settings(max_examples=500, deadline=None)
def test_a_bent_request_is_computed_rightly_or_refused_with_the_field(
    bench: PredictionBench, data: st.DataObject, bends: list[Any]
) -> None:
    request = good_request()
    for bend in bends:
        try:
            bend(data, request)
        except IndexError:
            continue  # an earlier bend took away what this one bends
    bench.check(request)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=500, deadline=None)
def test_flipped_bytes_of_a_message_are_survived(bench: PredictionBench, flips: list[tuple[int, int]]) -> None:
    payload = bytearray(good_request().SerializeToString())
    for position, value in flips:
        payload[position % len(payload)] = value
    try:
        request = pb.ModelInferRequest.FromString(bytes(payload))
    except DecodeError:
        return  # answered MALFORMED_CONTENT before it comes here
    bench.check(request)


def test_a_good_request_is_answered_after_all_that(bench: PredictionBench) -> None:
    assert bench.check(good_request())
    response = bench.predict(good_request())
    assert output_arrays(response)["t_out"].tolist() == [[b"a"], ["é".encode()]]
