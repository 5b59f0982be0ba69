"""The short way for plain requests says what the long way says, and takes nothing that is not plain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from modelyard.inference.execution.batches import Computed, OutputContents
from modelyard.inference.execution.feeds import Feeds, join
from modelyard.inference.execution.plan import ExecutionPlan
from modelyard.inference.execution.sessions import GraphSession, RuntimeOptions
from modelyard.inference.execution.signature import Signature, TensorInfo
from modelyard.inference.observation.statistics import Execution
from modelyard.inference.protocol.plain import FORMS_KEPT, PlainRequests
from modelyard.inference.protocol.requests import read_request
from modelyard.inference.protocol.responses import prediction
from modelyard.inference.serving.desired import WantedVersion
from modelyard.inference.serving.versions import LoadedVersion
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES
from modelyard.oip.tensors import add_input
from support import graphs

MAX_ROWS = 8
_TENSORS = [TensorInfo("f", DATATYPES["FP32"], (-1, 2)), TensorInfo("n", DATATYPES["INT8"], (-1, 3, 1))]
TWO_INPUTS = PlainRequests("m", "1", Signature.of(_TENSORS, _TENSORS), MAX_ROWS)
"""Sees many requests, as a pod's does."""


@pytest.fixture
async def version(tmp_path: Path) -> LoadedVersion:
    """Outputs equal inputs; float [batch, 2] and int8 [batch, 3, 1]."""
    kinds = {"f": (TensorProto.FLOAT, ("batch", 2)), "n": (TensorProto.INT8, ("batch", 3, 1))}
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in kinds]
    content = graphs.graph(nodes, kinds, {f"{name}_out": kind for name, kind in kinds.items()})
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    wanted = WantedVersion("m", 1, "digest", 1, (), (), 20, 10, "", "", "", "")
    session = GraphSession(path, RuntimeOptions(device="cpu"))
    return LoadedVersion(wanted, session, ExecutionPlan(max_batch_size=MAX_ROWS))


def plain_request(rows: int = 2) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", id="17")
    add_input(request, "f", np.arange(2 * rows, dtype=np.float32).reshape(rows, 2))
    add_input(request, "n", np.arange(3 * rows, dtype=np.int8).reshape(rows, 3, 1))
    return request


def read_both_ways(version: LoadedVersion, request: pb.ModelInferRequest) -> tuple[Feeds, Feeds]:
    """As the short way and as the long way reads it."""
    short = version.plain.read(request)
    assert short is not None
    inference = read_request(request, version)
    return short, Feeds.of(inference.feeds, inference.outputs, inference.rows, version.signature)


@pytest.mark.parametrize("rows", [1, 2, MAX_ROWS])
async def test_both_ways_read_the_same(version: LoadedVersion, rows: int) -> None:
    request = plain_request(rows)
    for _ in range(2):  # the second time from memory
        short, long = read_both_ways(version, request)
        assert (short.rows, short.key, list(short.outputs)) == (rows, long.key, list(long.outputs))
        for one, other in ((short, long), (long, short)):
            alone = [join([feeds], version.signature) for feeds in (one, other)]
            together = join([one, other], version.signature)
            for name, array in together.items():
                assert np.array_equal(alone[0][name], alone[1][name])
                assert np.array_equal(array, np.concatenate([alone[0][name]] * 2))


async def test_both_ways_answer_the_same(version: LoadedVersion) -> None:
    request = plain_request()
    contents = [OutputContents((2, 2), bytes(16)), OutputContents((2, 3, 1), bytes(6))]
    computed = Computed(contents, 0, Execution(1, 2, 0, 0, 0))
    for _ in range(2):
        assert version.plain.answer(request, computed) == prediction(
            request, version, version.all_outputs, computed.outputs
        )


async def test_naming_every_output_in_order_is_plain(version: LoadedVersion) -> None:
    request = plain_request()
    request.outputs.add(name="f_out")
    request.outputs.add(name="n_out")
    assert version.plain.read(request) is not None


def _change(change: Callable[[pb.ModelInferRequest], object]) -> pb.ModelInferRequest:
    request = plain_request()
    change(request)
    return request


def _with_rows(first: int, second: int) -> pb.ModelInferRequest:
    """Announces so many rows, whatever its contents."""
    request = plain_request(max(1, first))
    request.raw_input_contents[1] = bytes(3 * max(1, second))
    _set_shape(request, 0, first, 2)
    _set_shape(request, 1, second, 3, 1)
    return request


def _set_shape(request: pb.ModelInferRequest, index: int, *shape: int) -> None:
    request.inputs[index].shape[:] = shape


NOT_PLAIN: dict[str, Callable[[pb.ModelInferRequest], object]] = {
    "a parameter": lambda request: request.parameters["timeout"].MergeFromString(b"\x10\x05"),
    "one output of two": lambda request: request.outputs.add(name="f_out"),
    "outputs in another order": lambda request: request.outputs.extend([
        pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in ("n_out", "f_out")
    ]),
    "inputs in another order": lambda request: request.inputs.reverse(),
    "a missing input": lambda request: request.inputs.pop(),
    "missing contents": lambda request: request.raw_input_contents.pop(),
    "too many contents": lambda request: request.raw_input_contents.append(b""),
    "short contents": lambda request: request.raw_input_contents.__setitem__(0, bytes(15)),
    "contents twice": lambda request: request.inputs[0].contents.fp32_contents.append(1),
    "another datatype": lambda request: setattr(request.inputs[0], "datatype", "INT32"),
    "another shape": lambda request: _set_shape(request, 0, 4, 1),
    "another rank": lambda request: _set_shape(request, 0, 4),
    "no shape": lambda request: _set_shape(request, 0),
    "rows that differ": lambda request: request.CopyFrom(_with_rows(1, 2)),
    "no rows": lambda request: request.CopyFrom(_with_rows(0, 0)),
    "negative rows": lambda request: request.CopyFrom(_with_rows(-2, -2)),
    "a parameter of an input": lambda request: request.inputs[0].parameters["a"].MergeFromString(b"\x10\x05"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_PLAIN)
async def test_what_is_not_plain_is_left_to_the_long_way(version: LoadedVersion, name: str) -> None:
    assert version.plain.read(plain_request()) is not None  # its forms are known now
    assert version.plain.read(_change(NOT_PLAIN[name])) is None


async def test_more_rows_than_allowed_are_left_to_the_long_way(version: LoadedVersion) -> None:
    assert version.plain.read(plain_request(MAX_ROWS + 1)) is None


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (TensorProto.STRING, ("batch", 2)),
        (TensorProto.BOOL, ("batch", 2)),
        (TensorProto.FLOAT, ("batch", "n")),
        (TensorProto.FLOAT, (1, 2)),
    ],
)
async def test_inputs_that_need_a_closer_look_are_never_plain(
    tmp_path: Path, kind: int, shape: tuple[int | str, ...]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graphs.identity(kind, shape))
    signature = GraphSession(path, RuntimeOptions(device="cpu")).signature
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype=signature.inputs[0].datatype.name, shape=[1, 2])
    request.raw_input_contents.append(bytes(2 * (signature.inputs[0].datatype.itemsize or 4)))
    assert PlainRequests("m", "1", signature, MAX_ROWS).read(request) is None


async def test_memory_of_forms_is_bounded(version: LoadedVersion) -> None:
    computed = [
        Computed([OutputContents((1, size), b""), OutputContents((1, 3, 1), b"")], 0, Execution(1, 1, 0, 0, 0))
        for size in range(3 * FORMS_KEPT)
    ]
    for one in computed:
        assert version.plain.answer(plain_request(), one).outputs[0].shape == [*one.outputs[0].shape]
    assert len(version.plain._answers) <= FORMS_KEPT


@settings(max_examples=200, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_request_bent_at_random_is_read_rightly_or_left_alone(flips: list[tuple[int, int]]) -> None:
    raw = bytearray(plain_request().SerializeToString())
    for place, value in flips:
        raw[place % len(raw)] = value
    try:
        request = pb.ModelInferRequest.FromString(bytes(raw))
    except DecodeError:
        return
    feeds = TWO_INPUTS.read(request)
    if feeds is not None:
        assert [tensor.name for tensor in request.inputs] == ["f", "n"]
        assert [list(tensor.shape) for tensor in request.inputs] == [[feeds.rows, 2], [feeds.rows, 3, 1]]
        assert [len(contents) for contents in feeds.raws] == [feeds.rows * 8, feeds.rows * 3]
