"""Requests that were bent at random: computed rightly or refused with the field at fault, never anything else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from modelyard.core.errors import DeadlineExceeded, InvalidFields, NotFound
from modelyard.inference.desired import WantedModel, WantedVersion
from modelyard.inference.execution import ExecutionPlan
from modelyard.inference.prediction import Predictor
from modelyard.inference.sessions import GraphSession, RuntimeOptions
from modelyard.inference.table import ModelEntry, ServingTable
from modelyard.inference.versions import LoadedVersion
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES
from modelyard.oip.tensors import add_input, output_arrays
from support import graphs

FLOATS = np.array([[1, 2], [3, 4]], np.float32)
NUMBERS = np.array([[5], [6]], np.int8)
WORDS = np.array([["a"], ["é"]], dtype=object)


def three_inputs() -> bytes:
    """Outputs equal inputs; float [batch, 2], int8 [batch, n], text [batch, 1]."""
    kinds = {
        "f": (TensorProto.FLOAT, ("batch", 2)),
        "n": (TensorProto.INT8, ("batch", "n")),
        "t": (TensorProto.STRING, ("batch", 1)),
    }
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in kinds]
    return graphs.graph(nodes, kinds, {f"{name}_out": kind for name, kind in kinds.items()})


class Bench:
    """A predictor with one loaded version, and the loop it lives in."""

    def __init__(self, runner: asyncio.Runner, folder: Path) -> None:
        self._runner = runner
        path = folder / "model.onnx"
        path.write_bytes(three_inputs())
        runner.run(self._open(path))

    async def _open(self, path: Path) -> None:
        wanted = WantedVersion("m", 1, "digest", 1, (), (), 20, 10, "", "", "", "")
        session = GraphSession(path, RuntimeOptions())
        self.version = LoadedVersion(wanted, session, ExecutionPlan(max_batch_size=8, queue_size=10))
        table = ServingTable()
        model = WantedModel("m", {1: wanted}, {"live": 1})
        table.models["m"] = ModelEntry("m", model, loaded={1: self.version})
        table.models["m"].switch()
        table.known = table.confirmed = True
        table.publish()
        self._predictor = Predictor(table)

    def predict(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        return self._runner.run(self._predictor.predict(request))

    def close(self) -> None:
        self._runner.run(self.version.retire())


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with asyncio.Runner() as runner:
        bench = Bench(runner, tmp_path_factory.mktemp("bench"))
        yield bench
        bench.close()


def good() -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", id="1")
    add_input(request, "f", FLOATS)
    add_input(request, "n", NUMBERS)
    add_input(request, "t", WORDS)
    return request


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


def check(bench: Bench, request: pb.ModelInferRequest) -> None:
    """Predicts; an answer must be right, a refusal must say what is wrong."""
    statistics = bench.version.statistics
    before = statistics.success.count + statistics.fail.count
    try:
        response = bench.predict(request)
    except InvalidFields as error:
        check_refusal(error)
    except (NotFound, DeadlineExceeded):
        assert request.model_version or request.model_name != "m" or "timeout" in request.parameters
    else:
        check_answer(request, response)
    assert statistics.success.count + statistics.fail.count - before in (0, 1)
    assert bench.version._users == 0


def check_refusal(error: InvalidFields) -> None:
    """Says which fields are wrong, at a length that fits into a trailer."""
    assert error.violations
    assert all(violation.field and violation.description for violation in error.violations)
    assert len(error.message) < 5_000


def check_answer(request: pb.ModelInferRequest, response: pb.ModelInferResponse) -> None:
    """The graph answers its inputs: each output is the input of its name, byte for byte if that came raw."""
    given = {tensor.name: index for index, tensor in enumerate(request.inputs)}
    answered = output_arrays(response)
    wanted = {output.name for output in request.outputs} or {"f_out", "n_out", "t_out"}
    assert set(answered) == wanted
    for index, output in enumerate(response.outputs):
        source = given[output.name.removesuffix("_out")]
        assert list(output.shape) == list(request.inputs[source].shape)
        if request.raw_input_contents:
            assert response.raw_output_contents[index] == request.raw_input_contents[source]


@given(st.data(), st.lists(st.sampled_from(BENDS), min_size=1, max_size=3))
@settings(max_examples=500, deadline=None)
def test_a_bent_request_is_computed_rightly_or_refused_with_the_field(
    bench: Bench, data: st.DataObject, bends: list[Any]
) -> None:
    request = good()
    for bend in bends:
        try:
            bend(data, request)
        except IndexError:
            continue  # an earlier bend took away what this one bends
    check(bench, request)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=500, deadline=None)
def test_flipped_bytes_of_a_message_are_survived(bench: Bench, flips: list[tuple[int, int]]) -> None:
    payload = bytearray(good().SerializeToString())
    for position, value in flips:
        payload[position % len(payload)] = value
    try:
        request = pb.ModelInferRequest.FromString(bytes(payload))
    except DecodeError:
        return  # answered MALFORMED_CONTENT before it comes here
    check(bench, request)


def test_a_good_request_is_answered_after_all_that(bench: Bench) -> None:
    check(bench, good())
    response = bench.predict(good())
    assert output_arrays(response)["t_out"].tolist() == [[b"a"], ["é".encode()]]
