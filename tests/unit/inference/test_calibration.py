"""What is decided at load: whether requests may be computed together, and whether they should be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper

from modelyard.inference.execution import calibration
from modelyard.inference.execution.calibration import (
    BATCH_SIZES,
    MOST_THREADS,
    Wishes,
    plan_execution,
    replan,
    threads_of_run,
)
from modelyard.inference.execution.feeds import Feeds
from modelyard.inference.execution.independence import why_rows_depend
from modelyard.inference.execution.plan import ExecutionPlan, Figure
from modelyard.inference.execution.samples import sample_inputs
from modelyard.inference.execution.sessions import GraphSession, RuntimeOptions
from support import graphs

FLOATS = (TensorProto.FLOAT, ("batch", 4))
WISHES = Wishes(runners=2, queue_size=7, max_batch_size=64)
WIDE = 2048


def opened(folder: Path, content: bytes) -> GraphSession:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return GraphSession(path, RuntimeOptions(device="cpu"))


def chain(*nodes: NodeProto, **constants: object) -> bytes:
    """A graph from x to y, both float [batch, 4]."""
    return graphs.graph(list(nodes), {"x": FLOATS}, {"y": FLOATS}, constants)


node = helper.make_node

DEPENDENT = {
    "softmax over the batch": chain(node("Softmax", ["x"], ["y"], axis=0)),
    "the batch's mean taken off": chain(node("ReduceMean", ["x", "first"], ["m"]), node("Sub", ["x", "m"], ["y"]),
                                        first=np.array([0])),
    "a running sum over the batch": chain(node("CumSum", ["x", "first"], ["y"]), first=np.array(0)),
    "the batch in reverse": chain(node("Slice", ["x", "start", "end", "first", "step"], ["y"]),
                                  start=np.array([-1]), end=np.array([-2**62]),
                                  first=np.array([0]), step=np.array([-1])),
    "batch statistics as in training": chain(
        node("BatchNormalization", ["x", "scale", "bias", "mean", "var"], ["y", "mean1", "var1"], training_mode=1),
        scale=np.ones(4, np.float32), bias=np.zeros(4, np.float32), mean=np.zeros(4, np.float32),
        var=np.ones(4, np.float32)),
    "quantised by the batch's range": chain(
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])),
    "one caller's NaN for all": chain(
        node("ReduceMean", ["x"], ["m"], keepdims=0), node("Mul", ["m", "zero"], ["n"]), node("Add", ["x", "n"], ["y"]),
        zero=np.float32(0)),
    "noise": chain(node("RandomNormalLike", ["x"], ["r"]), node("Add", ["x", "r"], ["y"])),
    "the number of rows": chain(
        node("Shape", ["x"], ["rows"], end=1), node("Cast", ["rows"], ["n"], to=TensorProto.FLOAT),
        node("Add", ["x", "n"], ["y"])),
    "more rows than ten": chain(
        node("Shape", ["x"], ["rows"], end=1), node("Cast", ["rows"], ["n"], to=TensorProto.FLOAT),
        node("Max", ["n", "ten"], ["m"]), node("Add", ["x", "m"], ["y"]), ten=np.float32(10)),
}  # fmt: skip

INDEPENDENT = {
    "each element": chain(node("Relu", ["x"], ["y"])),
    "softmax over the columns": chain(node("Softmax", ["x"], ["y"], axis=1)),
    "a matrix": chain(node("MatMul", ["x", "w"], ["y"]), w=np.ones((4, 4), np.float32)),
    "text": graphs.identity(TensorProto.STRING),
    "half precision": graphs.identity(TensorProto.FLOAT16),
    "bfloat16": graphs.identity(TensorProto.BFLOAT16),
    "a table": graphs.lookup(),
    "free columns": graphs.identity(TensorProto.FLOAT, ("batch", "n")),
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_a_graph_whose_rows_depend_on_one_another_is_found_out(tmp_path: Path, name: str) -> None:
    session = opened(tmp_path, DEPENDENT[name])
    reason = why_rows_depend(session)
    assert reason
    plan = plan_execution(session, Wishes(1, 1, 64, batching=True), predictable=True)
    assert not plan.batching
    assert reason in plan.reason


@pytest.mark.parametrize("name", INDEPENDENT)
def test_a_graph_that_computes_each_row_by_itself_may_be_joined(tmp_path: Path, name: str) -> None:
    assert not why_rows_depend(opened(tmp_path, INDEPENDENT[name]))


def test_a_graph_that_takes_nothing_that_one_can_think_of_is_not_joined(tmp_path: Path) -> None:
    integers = (TensorProto.INT64, ("batch", 1))
    nodes = [node("Add", ["x", "far"], ["i"]), node("Gather", ["values", "i"], ["y"])]
    content = graphs.graph(nodes, {"x": integers}, {"y": integers}, {"values": np.arange(3), "far": np.array(1000)})
    plan = plan_execution(opened(tmp_path, content), WISHES, predictable=True)
    assert not plan.batching
    assert "takes none of the inputs" in plan.reason
    assert plan.figures == ()


def wide() -> bytes:
    """One row takes as long as many: the matrix must be read from memory."""
    shape = (TensorProto.FLOAT, ("batch", WIDE))
    weights = {"w": np.ones((WIDE, WIDE), np.float32)}
    return graphs.graph([node("MatMul", ["x", "w"], ["y"])], {"x": shape}, {"y": shape}, weights)


def test_what_gains_by_it_is_joined_and_the_figures_are_kept(tmp_path: Path) -> None:
    plan = plan_execution(opened(tmp_path, wide()), WISHES, predictable=True)
    assert plan.reason == "requests are joined: measured to be faster"
    assert 2 <= plan.batch_rows <= 64
    assert 1 <= plan.split_rows <= plan.batch_rows
    assert (plan.max_batch_size, plan.runners, plan.queue_size) == (64, 2, 7)
    assert [figure.rows for figure in plan.figures] == [rows for rows in BATCH_SIZES if rows <= 64][: len(plan.figures)]
    assert len(plan.figures) >= 2
    assert all(figure.rows_per_second > 0 for figure in plan.figures)


def test_a_tiny_graph_is_computed_in_the_event_loop_unless_values_decide_how_long_it_takes(tmp_path: Path) -> None:
    session = opened(tmp_path, graphs.scale(2))
    assert plan_execution(session, WISHES, predictable=True).inline_rows >= 1
    plan = plan_execution(session, WISHES, predictable=False)
    assert (plan.inline_rows, plan.batch_rows) == (0, 1)
    assert "how long the graph computes" in plan.reason


def test_a_graph_without_a_batch_dimension_is_measured_and_not_joined(tmp_path: Path) -> None:
    session = opened(tmp_path, graphs.identity(TensorProto.FLOAT, (1, 2)))
    plan = plan_execution(session, WISHES, predictable=True)
    assert (plan.max_batch_size, plan.batch_rows, len(plan.figures)) == (0, 1, 1)


def test_wishes_come_first(tmp_path: Path) -> None:
    session = opened(tmp_path, graphs.scale(2))
    unjoined = plan_execution(session, Wishes(1, 1, 64, batching=False), predictable=True)
    assert (unjoined.batch_rows, unjoined.reason) == (1, "requests are computed one by one: so the settings say")
    joined = plan_execution(session, Wishes(1, 1, 3, batching=True), predictable=True)
    assert 2 <= joined.batch_rows <= 3


def test_made_up_inputs_fit_the_signature_and_are_always_the_same(tmp_path: Path) -> None:
    session = opened(tmp_path, graphs.identity(TensorProto.FLOAT, ("batch", 3, "n")))
    first, second = (sample_inputs(session.signature, [1, float("nan"), 100], 5)["x"] for _ in range(2))
    assert first.shape == (3, 3, 5)
    assert np.isnan(first[1]).all()
    assert np.array_equal(first, second, equal_nan=True)


def measured(batch_rows: int, *run_us: int) -> ExecutionPlan:
    """A plan with these times for 1, 8, 32 … rows."""
    figures = tuple(Figure(rows, 1000 * us) for rows, us in zip(BATCH_SIZES, run_us, strict=False))
    return ExecutionPlan(max_batch_size=64, batch_rows=batch_rows, runners=2, reason="measured", figures=figures)


@pytest.mark.parametrize(
    ("run_us", "batch_rows"),
    [
        ((20_000, 160_000), 1),  # as fast one by one
        ((20_000, 150_000), 1),  # within what two measurements differ by
        ((20_000, 140_000), 8),  # a little faster
        ((20_000, 140_000, 540_000), 8),  # hardly more in larger batches
        ((20_000, 140_000, 440_000), 32),
        ((200_000, 1_400_000), 1),  # a little faster, and far too slow
        ((20_000, 80_000, 320_000), 64),  # worth it
    ],
)
def test_a_small_gain_is_taken_in_the_smallest_batches_that_have_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run_us: Sequence[int], batch_rows: int
) -> None:
    figures = measured(1, *run_us).figures
    monkeypatch.setattr(calibration, "_measure", lambda *_: figures)
    plan = plan_execution(opened(tmp_path, graphs.scale(2)), WISHES, predictable=True)
    assert plan.batch_rows == batch_rows
    assert plan.batching == (batch_rows > 1)


def test_a_gain_that_is_gone_when_it_is_measured_once_more_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every row takes 5 ms, but one row alone takes longer while nothing but one row has been measured."""
    sizes: list[int] = []

    def run_ns(_session: GraphSession, requests: Sequence[Feeds]) -> int:
        sizes.append(len(requests))
        return 5_000_000 * len(requests) if max(sizes) > 1 else 6_500_000

    monkeypatch.setattr(calibration, "_run_ns", run_ns)
    plan = plan_execution(opened(tmp_path, graphs.scale(2)), Wishes(2, 7, max_batch_size=8), predictable=True)
    assert plan.batch_rows == 1
    assert [figure.run_ns for figure in plan.figures] == [5_000_000, 40_000_000]


@pytest.mark.parametrize(
    ("plan", "cpus", "threads"),
    [
        (measured(128, 4000, 6500, 15_000, 50_000), 2, 2),  # reads weights, above all
        (measured(128, 4000, 6500, 15_000, 50_000), 64, MOST_THREADS),
        (measured(128, 4000, 6500, 15_000, 50_000), 1, 1),
        (measured(1, 4000, 6500, 15_000, 50_000), 2, 1),  # rows that must not be joined
        (measured(128, 100, 150, 300, 900), 2, 1),  # too small to be parted
        (measured(32, 25_000, 190_000, 700_000), 2, 1),  # computes, above all
        (measured(32), 2, 1),  # not measured
    ],
)
def test_one_run_gets_all_processors_where_most_of_it_is_reading_weights(
    plan: ExecutionPlan, cpus: int, threads: int
) -> None:
    assert threads_of_run(plan, cpus) == threads


def test_a_plan_for_more_threads_keeps_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graphs.scale(2))
    session = GraphSession(path, RuntimeOptions(graph_threads=2, device="cpu"))
    plan = measured(128, 4000, 6500)
    wishes = Wishes(runners=1, queue_size=7, max_batch_size=64, graph_threads=2)
    new = replan(plan, session, wishes)
    assert (new.runners, new.graph_threads, new.batch_rows, new.figures) == (1, 2, 128, plan.figures)
    assert "2 threads" in new.reason


def test_a_plan_for_more_threads_joins_nothing_if_rows_then_depend_on_each_other(tmp_path: Path) -> None:
    plan = measured(128, 4000, 6500)
    session = opened(tmp_path, DEPENDENT["softmax over the batch"])
    new = replan(plan, session, Wishes(runners=1, queue_size=7, max_batch_size=64, graph_threads=2))
    assert (new.batch_rows, new.split_rows) == (1, 1)
