"""Calls that came together are one request in the queue, and each caller sees none of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from modelyard.core.errors import DeadlineExceeded, Unavailable
from modelyard.inference.calls import PredictionCall
from modelyard.inference.execution.plan import ExecutionPlan
from modelyard.inference.execution.sessions import GraphSession, RuntimeOptions
from modelyard.inference.observation.statistics import VersionStatistics
from modelyard.inference.plain_prediction import JointPrediction
from modelyard.inference.prediction import Predictor
from modelyard.inference.serving.desired import WantedModel, WantedVersion
from modelyard.inference.serving.table import ModelEntry, ServingTable
from modelyard.inference.serving.versions import LoadedVersion
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.tensors import Array, add_input
from support import graphs
from support.batchers import GatedSession, rows
from support.plain_messages import plain_message
from support.waiting import eventually

PLAN = ExecutionPlan(max_batch_size=8, batch_rows=8, split_rows=8, queue_size=8)


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.answer: tuple[bytes, Sequence[bytes]] | None = None
        self.error: Exception | None = None
        self.parted = False

    def answered(self, head: bytes, raws: Sequence[bytes]) -> None:
        self.answer = head, raws

    def failed(self, error: Exception) -> None:
        self.error = error

    def to_be_parted(self) -> None:
        self.parted = True

    async def until_over(self) -> None:
        async def over() -> bool:
            return self.answer is not None or self.error is not None or self.parted

        await eventually(over)


class Bench:
    """A predictor with the version 1 of the model `m`."""

    def __init__(self, session: GraphSession, plan: ExecutionPlan = PLAN) -> None:
        wanted = WantedVersion("m", 1, "digest", 1, (), (), 20, 10, "", "", "", "")
        self.version = LoadedVersion(wanted, session, plan)
        table = ServingTable()
        table.models["m"] = ModelEntry("m", WantedModel("m", {1: wanted}, {"live": 1}), loaded={1: self.version})
        table.models["m"].switch()
        table.known = table.confirmed = True
        table.publish()
        self.predictor = Predictor(table)

    async def learn(self, one: Array) -> None:
        """Has one request answered, and forgets to have counted it."""
        request = asked(one)
        await self.predictor.predict(request, PredictionCall(), plain_message(request))
        self.version.statistics = VersionStatistics()

    def begin(self, heard: Heard, arrays: Sequence[Array], expires: float | None = None) -> JointPrediction | None:
        """One call for each of the arrays."""
        raw = b"".join([array.tobytes() for array in arrays])
        plain = plain_message(asked(arrays[0]))
        begun = self.predictor.begin_together(plain, len(arrays), raw, PredictionCall(expires), heard)
        self.predictor.serve_begun()
        return begun

    @property
    def counts(self) -> tuple[int, int, int]:
        """Requests answered and failed, rows computed."""
        statistics = self.version.statistics
        return statistics.success.count, statistics.fail.count, statistics.row_count


def asked(array: Array) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m")
    add_input(request, "x", array)
    return request


@pytest.fixture
async def session(tmp_path: Path) -> GatedSession:
    """y = 10, 20 or 30 for x = 0, 1 or 2; another x fails."""
    return GatedSession(tmp_path / "model.onnx", graphs.lookup())


@pytest.fixture
async def bench(session: GatedSession) -> AsyncIterator[Bench]:
    """One request has been answered. Whatever is computed in the end is ended."""
    made = Bench(session)
    session.permits.release()
    await made.learn(rows(0))
    yield made
    made.version.abort()
    session.permits.release(1000)
    await made.version.batcher.close()


async def test_each_is_answered_with_its_share(bench: Bench, session: GatedSession) -> None:
    session.permits.release()
    heard = Heard()
    assert bench.begin(heard, [rows(2), rows(0), rows(1)]) is not None
    await heard.until_over()
    assert heard.answer is not None
    head, (contents,) = heard.answer
    assert np.frombuffer(contents, np.float32).tolist() == [30, 10, 20]
    first = pb.ModelInferResponse.FromString(head)
    assert (first.model_name, first.model_version, first.outputs[0].shape) == ("m", "1", [1, 1])
    assert bench.counts == (3, 0, 3)
    assert bench.version.statistics.execution_count == 1
    assert bench.version._users == 0


async def test_one_that_is_at_fault_has_them_parted_and_nothing_counted(bench: Bench, session: GatedSession) -> None:
    session.permits.release(10)
    heard = Heard()
    bench.begin(heard, [rows(2), rows(7), rows(1)])
    await heard.until_over()
    assert heard.parted
    assert bench.counts == (0, 0, 0)
    assert bench.version._users == 0


async def test_a_graph_that_mixes_rows_up_has_them_parted_and_joins_no_more(tmp_path: Path) -> None:
    floats = (TensorProto.FLOAT, ("batch", 2))
    # The first row only: the runtime cannot see how many rows come out, since that is computed.
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Div", ["shape", "shape"], ["ones"]),
        helper.make_node("Gather", ["ones", "zero"], ["end"]),
        helper.make_node("Slice", ["x", "zero", "end", "zero"], ["y"]),
    ]
    path = tmp_path / "model.onnx"
    path.write_bytes(graphs.graph(nodes, {"x": floats}, {"y": floats}, {"zero": np.array([0])}))
    bench = Bench(GraphSession(path, RuntimeOptions(device="cpu")))
    await bench.learn(np.ones((1, 2), np.float32))
    heard = Heard()
    assert bench.begin(heard, [np.ones((1, 2), np.float32)] * 2) is not None
    await heard.until_over()
    assert (heard.parted, heard.answer) == (True, None)
    assert not bench.version.execution.batching
    assert bench.begin(Heard(), [np.ones((1, 2), np.float32)] * 2) is None
    await bench.version.batcher.close()


async def test_their_deadline_ends_them_all(bench: Bench, session: GatedSession) -> None:
    heard = Heard()
    bench.begin(heard, [rows(0), rows(1)], expires=asyncio.get_running_loop().time() + 0.05)
    await heard.until_over()
    assert isinstance(heard.error, DeadlineExceeded)
    assert bench.counts == (0, 2, 0)


async def test_one_that_leaves_is_counted_and_the_others_are_answered(bench: Bench, session: GatedSession) -> None:
    heard = Heard()
    begun = bench.begin(heard, [rows(0), rows(1)])
    assert begun is not None
    assert not begun.one_is_gone()
    session.permits.release()
    await heard.until_over()
    assert heard.answer is not None
    assert bench.counts == (1, 1, 2)


async def test_when_all_have_left_the_request_leaves_the_queue(bench: Bench, session: GatedSession) -> None:
    blocking = Heard()
    bench.begin(blocking, [rows(0)])
    await session.until_begun(2)
    waiting = Heard()
    begun = bench.begin(waiting, [rows(0), rows(1)])
    assert begun is not None
    assert bench.version.waiting == 2
    assert [begun.one_is_gone(), begun.one_is_gone(), begun.one_is_gone()] == [False, True, False]
    assert bench.version.waiting == 0
    session.permits.release()
    await blocking.until_over()
    assert (waiting.answer, waiting.error, waiting.parted) == (None, None, False)
    assert bench.counts == (1, 2, 1)


async def test_a_version_that_is_aborted_tells_them(bench: Bench, session: GatedSession) -> None:
    heard = Heard()
    bench.begin(heard, [rows(0), rows(1)])
    bench.version.abort()
    assert isinstance(heard.error, Unavailable)


async def test_calls_for_which_there_is_no_room_are_not_taken_together(bench: Bench, session: GatedSession) -> None:
    bench.begin(Heard(), [rows(0)])
    await session.until_begun(2)
    assert bench.begin(Heard(), [rows(0)] * 8) is not None
    assert bench.version.waiting == 8
    assert bench.begin(Heard(), [rows(0)]) is None
    assert bench.version.waiting == 8


async def test_more_rows_than_are_computed_together_are_not_taken_together(bench: Bench) -> None:
    assert bench.begin(Heard(), [rows(0)] * 9) is None


async def test_an_unknown_form_is_not_taken_together(bench: Bench) -> None:
    assert bench.begin(Heard(), [rows(0, 1), rows(1, 2)]) is None
