"""The batcher, with a session that computes when the test lets it."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from modelyard.core.errors import DeadlineExceeded, InvalidFields, ResourceExhausted, Unavailable
from modelyard.inference.execution.batching import Batcher
from modelyard.inference.execution.feeds import Feeds
from modelyard.inference.execution.plan import ExecutionPlan
from modelyard.inference.execution.sessions import LOAD_ERRORS, GraphSession, RuntimeOptions
from modelyard.inference.execution.signature import Signature, TensorInfo
from support import graphs
from support.batchers import GatedSession, ask, batching, feeds, numbers
from support.waiting import eventually

ONE_BY_ONE = ExecutionPlan(max_batch_size=8, queue_size=3)
JOINED = ExecutionPlan(max_batch_size=8, batch_rows=4, split_rows=4, queue_size=8)
INLINE = ExecutionPlan(max_batch_size=8, batch_rows=4, inline_rows=8, queue_size=8)


@pytest.fixture
def session(tmp_path: Path) -> GatedSession:
    """y = 10, 20 or 30 for x = 0, 1 or 2; another x fails."""
    return GatedSession(tmp_path / "model.onnx", graphs.lookup())


def opened(path: Path, content: bytes) -> GraphSession:
    """A session that computes at once."""
    path.write_bytes(content)
    return GraphSession(path, RuntimeOptions(device="cpu"))


async def test_an_idle_runner_takes_a_request_at_once_and_what_comes_meanwhile_together(session: GatedSession) -> None:
    async with batching(session, JOINED) as batcher:
        first = ask(batcher, session, 0)
        await session.until_begun(1)
        others = [ask(batcher, session, 1), ask(batcher, session, 2, 0), ask(batcher, session, 1)]
        await asyncio.sleep(0)
        session.permits.release(2)
        assert numbers(await first) == [10]
        assert [numbers(await other) for other in others] == [[20], [30, 10], [20]]
    assert session.begun == [1, 4]


async def test_a_batch_tells_its_own_figures_and_each_request_its_own_wait(session: GatedSession) -> None:
    async with batching(session, JOINED) as batcher:
        first = ask(batcher, session, 0)
        await session.until_begun(1)
        pair = [ask(batcher, session, 1), ask(batcher, session, 2)]
        await asyncio.sleep(0)
        session.permits.release(2)
        one, other = await asyncio.gather(*pair)
        assert one.run is other.run
        assert (one.run.requests, one.run.rows) == (2, 2)
        assert min(one.queue_ns, one.run.input_ns, one.run.infer_ns, one.run.output_ns) > 0
        assert (await first).run.requests == 1


async def test_a_batch_holds_no_more_rows_than_planned_and_a_large_request_goes_alone(session: GatedSession) -> None:
    async with batching(session, JOINED) as batcher:
        first = ask(batcher, session, 0)
        await session.until_begun(1)
        waiting = [ask(batcher, session, *values) for values in ((1, 1, 1), (2, 2), (0,), (2,) * 7)]
        await asyncio.sleep(0)
        session.permits.release(10)
        for request in (first, *waiting):
            await request
    # The single row fits beside the three, and passes the two that do not.
    assert session.begun == [1, 4, 2, 7]


async def test_a_lower_number_goes_first_and_none_means_the_middle(session: GatedSession) -> None:
    order: list[str] = []
    plan = ExecutionPlan(max_batch_size=8, queue_size=10)
    async with batching(session, plan) as batcher:
        first = ask(batcher, session, 0)
        await session.until_begun(1)
        asked = {"low": 51, "none": 0, "high": 49, "first": 1, "beyond": 101, "none again": 0}
        for name, priority in asked.items():
            task = ask(batcher, session, 1, priority=priority)
            task.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]
        await asyncio.sleep(0)
        session.permits.release(10)
        await first

        async def all_answered() -> bool:
            return len(order) == len(asked)

        await eventually(all_answered)
    assert order == ["first", "high", "none", "beyond", "none again", "low"]


async def test_requests_with_other_shapes_or_outputs_are_not_joined(tmp_path: Path) -> None:
    free = (TensorProto.FLOAT, ("batch", "n"))
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"])]
    session = GatedSession(tmp_path / "model.onnx", graphs.graph(nodes, {"x": free}, {"y": free, "z": free}))
    async with batching(session, ExecutionPlan(max_batch_size=8, batch_rows=8, split_rows=8)) as batcher:

        def asked(width: int, *outputs: str) -> asyncio.Task[object]:
            arrays = {"x": np.full((1, width), -2, np.float32)}
            return asyncio.create_task(batcher.compute(Feeds.of(arrays, outputs, 1, session.signature)))

        first = asked(1, "y")
        await session.until_begun(1)
        others = [asked(2, "y"), asked(3, "y"), asked(2, "z"), asked(2, "y"), asked(2, "y", "z"), asked(3, "y")]
        await asyncio.sleep(0)
        session.permits.release(10)
        await asyncio.gather(first, *others)
    assert session.begun == [1, 2, 2, 1, 1]


async def test_one_more_than_the_queue_holds_is_refused_and_a_place_is_given_back(session: GatedSession) -> None:
    async with batching(session, ONE_BY_ONE) as batcher:
        running = ask(batcher, session, 0)
        await session.until_begun(1)
        waiting = [ask(batcher, session, 1) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhausted) as raised:
            await ask(batcher, session, 1)
        assert raised.value.retry_after
        assert "3 requests may wait" in raised.value.message
        waiting[1].cancel()
        await asyncio.sleep(0)
        waiting.append(ask(batcher, session, 2))  # in its place
        session.permits.release(4)
        assert numbers(await running) == [10]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["Computed", "CancelledError", "Computed", "Computed"]
    assert len(session.begun) == 4


async def test_the_advice_to_come_back_follows_the_measured_rate(tmp_path: Path) -> None:
    session = GatedSession(tmp_path / "model.onnx", graphs.lookup())
    async with batching(session, ONE_BY_ONE) as batcher:
        slow = ask(batcher, session, 0)
        await session.until_begun(1)
        await asyncio.to_thread(threading.Event().wait, 0.05)  # a run of 50 ms or more
        session.permits.release()
        await slow
        blocked = [ask(batcher, session, 0) for _ in range(4)]
        await session.until_begun(2)
        with pytest.raises(ResourceExhausted) as raised:
            await ask(batcher, session, 1)
        assert raised.value.retry_after is not None
        assert 0.15 <= raised.value.retry_after <= 30
        session.permits.release(10)
        await asyncio.gather(*blocked)


async def test_a_time_that_passes_in_the_queue_ends_the_wait_and_frees_the_place(session: GatedSession) -> None:
    async with batching(session, ONE_BY_ONE) as batcher:
        first = ask(batcher, session, 0)
        await session.until_begun(1)
        hurried = ask(batcher, session, 1, expires=asyncio.get_running_loop().time() + 0.01)
        with pytest.raises(DeadlineExceeded):
            await hurried
        assert batcher.waiting == 0
        assert not first.done()
        session.permits.release(2)
        await first
    assert session.begun == [1]


async def test_a_time_that_passes_during_the_run_is_told_at_once_and_harms_no_neighbour(session: GatedSession) -> None:
    async with batching(session, JOINED) as batcher:
        first = ask(batcher, session, 0)
        await session.until_begun(1)
        hurried = ask(batcher, session, 1, expires=asyncio.get_running_loop().time() + 0.02)
        patient = ask(batcher, session, 2)
        await asyncio.sleep(0)
        session.permits.release()
        await session.until_begun(2)
        with pytest.raises(DeadlineExceeded):
            await hurried
        assert not patient.done()
        session.permits.release()
        assert numbers(await patient) == [30]
        await first
    assert session.begun == [1, 2]


async def test_a_cancel_in_the_queue_or_in_the_batch_harms_no_neighbour(session: GatedSession) -> None:
    async with batching(session, JOINED) as batcher:
        first = ask(batcher, session, 0)
        await session.until_begun(1)
        doomed, gone, kept = ask(batcher, session, 1), ask(batcher, session, 1), ask(batcher, session, 2)
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        session.permits.release()
        await session.until_begun(2)
        doomed.cancel()
        await asyncio.sleep(0)
        session.permits.release()
        assert numbers(await kept) == [30]
        results = await asyncio.gather(first, doomed, gone, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["Computed", "CancelledError", "CancelledError"]
    assert session.begun == [1, 2]


async def test_a_bad_tensor_fails_its_sender_alone(session: GatedSession) -> None:
    async with batching(session, JOINED) as batcher:
        first = ask(batcher, session, 0)
        await session.until_begun(1)
        good, bad, other = ask(batcher, session, 1), ask(batcher, session, 99), ask(batcher, session, 2, 0)
        await asyncio.sleep(0)
        session.permits.release(10)
        assert numbers(await good) == [20]
        assert numbers(await other) == [30, 10]
        with pytest.raises(InvalidFields):
            await bad
        await first
    assert session.begun == [1, 4, 1, 1, 2]


async def test_what_waits_is_shared_among_idle_runners_but_not_into_crumbs(session: GatedSession) -> None:
    plan = ExecutionPlan(max_batch_size=8, batch_rows=8, split_rows=2, runners=3)
    async with batching(session, plan) as batcher:
        requests = [ask(batcher, session, 0) for _ in range(5)]
        await session.until_begun(3)
        session.permits.release(10)
        await asyncio.gather(*requests)
    assert sorted(session.begun) == [1, 2, 2]


async def test_an_idle_runner_leaves_a_busy_one_its_share(session: GatedSession) -> None:
    plan = ExecutionPlan(max_batch_size=8, batch_rows=8, runners=2)
    async with batching(session, plan) as batcher:
        first = ask(batcher, session, 0)
        await session.until_begun(1)
        requests = [ask(batcher, session, 0) for _ in range(7)]
        await session.until_begun(2)
        session.permits.release(10)
        await asyncio.gather(first, *requests)
    assert session.begun[:2] == [1, 4]


async def test_small_batches_are_computed_in_the_event_loop_and_large_ones_in_a_thread(tmp_path: Path) -> None:
    session = opened(tmp_path / "model.onnx", graphs.lookup())
    async with batching(session, ExecutionPlan(max_batch_size=8, batch_rows=4, inline_rows=4)) as batcher:
        small = [ask(batcher, session, 0), ask(batcher, session, 1), ask(batcher, session, 99)]
        results = await asyncio.gather(*small, return_exceptions=True)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("batcher of a test")]
        assert [numbers(result) for result in results[:2]] == [[10], [20]]  # type: ignore[arg-type]
        assert isinstance(results[2], InvalidFields)
        assert numbers(await ask(batcher, session, *(2,) * 5)) == [30] * 5
        assert [thread for thread in threading.enumerate() if thread.name.startswith("batcher of a test")]


async def test_a_request_that_has_no_time_left_is_not_computed(tmp_path: Path) -> None:
    session = GatedSession(tmp_path / "model.onnx", graphs.lookup())
    async with batching(session, INLINE) as batcher:
        late = ask(batcher, session, 0, expires=asyncio.get_running_loop().time() - 1)
        with pytest.raises(DeadlineExceeded):
            await late
    assert session.begun == []


async def test_results_that_are_not_one_row_for_each_row_are_never_shared_out(tmp_path: Path) -> None:
    node = helper.make_node("Unique", ["x"], ["y"], axis=0)
    integers, some = (TensorProto.INT64, ("batch", 1)), (TensorProto.INT64, ("distinct", 1))
    session = GatedSession(tmp_path / "model.onnx", graphs.graph([node], {"x": integers}, {"y": some}))
    async with batching(session, JOINED) as batcher:
        first = ask(batcher, session, 5)
        await session.until_begun(1)
        pair = [ask(batcher, session, 7), ask(batcher, session, 7)]
        await asyncio.sleep(0)
        session.permits.release(10)
        assert [numbers(await request, "<i8") for request in (first, *pair)] == [[5], [7], [7]]
        assert not batcher.plan.batching
        assert "another number of rows" in batcher.plan.reason
    assert session.begun == [1, 2, 1, 1]


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.BOOL])
async def test_every_kind_of_element_is_joined_and_taken_apart(tmp_path: Path, kind: int) -> None:
    session = opened(tmp_path / "model.onnx", graphs.identity(kind, ("batch", 2)))
    columns: dict[int, list[np.ndarray]] = {
        TensorProto.STRING: [np.array([["é", ""]], object), np.array([["a", "b"], ["c", "d"]], object)],
        TensorProto.BFLOAT16: [np.array([[1, 2]], np.uint16), np.array([[3, 4], [5, 0x7FC0]], np.uint16)],
        TensorProto.FLOAT16: [np.array([[1, 2]], np.float16), np.array([[3, 4], [5, np.inf]], np.float16)],
        TensorProto.BOOL: [np.array([[True, False]]), np.array([[False, True], [True, True]])],
    }
    plan = ExecutionPlan(max_batch_size=8, batch_rows=8, inline_rows=8)
    async with batching(session, plan) as batcher:
        alone = [await batcher.compute(feeds(session, x=array)) for array in columns[kind]]
        together = await asyncio.gather(*(batcher.compute(feeds(session, x=array)) for array in columns[kind]))
    assert together[0].run.requests == 2
    assert [one.outputs for one in together] == [one.outputs for one in alone]
    if kind == TensorProto.STRING:
        assert alone[0].outputs[0].raw == b"\2\0\0\0\xc3\xa9\0\0\0\0"


async def test_large_results_are_cut_by_row_too(tmp_path: Path) -> None:
    session = opened(tmp_path / "model.onnx", graphs.scale(2, 50_000))
    plan = ExecutionPlan(max_batch_size=8, batch_rows=8, inline_rows=8)
    async with batching(session, plan) as batcher:
        asked = [np.full((count, 50_000), count, np.float32) for count in (1, 2, 1)]
        answers = await asyncio.gather(*(batcher.compute(feeds(session, x=array)) for array in asked))
    assert answers[0].run.requests == 3
    for array, answer in zip(asked, answers, strict=True):
        assert answer.outputs[0].raw == (2 * array).tobytes()


async def test_a_run_without_end_is_stopped_when_its_last_caller_leaves(tmp_path: Path) -> None:
    session = opened(tmp_path / "model.onnx", graphs.counting())
    async with batching(session, ExecutionPlan(max_batch_size=8, batch_rows=8, split_rows=8)) as batcher:
        endless = ask(batcher, session, 2**62)
        await _until_it_runs(batcher)
        hurried = ask(batcher, session, 3, expires=asyncio.get_running_loop().time() + 0.05)
        with pytest.raises(DeadlineExceeded):
            await hurried
        endless.cancel()
        assert numbers(await ask(batcher, session, 4), "<i8") == [4]
        with pytest.raises(asyncio.CancelledError):
            await endless


async def test_a_run_without_end_is_stopped_when_time_is_over(tmp_path: Path) -> None:
    session = opened(tmp_path / "model.onnx", graphs.counting())
    async with batching(session, ExecutionPlan(max_batch_size=8)) as batcher:
        with pytest.raises(DeadlineExceeded):
            await ask(batcher, session, 2**62, expires=asyncio.get_running_loop().time() + 0.05)
        assert numbers(await ask(batcher, session, 4), "<i8") == [4]


async def test_an_aborted_batcher_ends_even_a_run_without_end(tmp_path: Path) -> None:
    session = opened(tmp_path / "model.onnx", graphs.counting())
    batcher = Batcher(session, ExecutionPlan(max_batch_size=8), name="aborted")
    calls = [ask(batcher, session, 2**62)]
    await _until_it_runs(batcher)
    calls.append(ask(batcher, session, 1))
    await asyncio.sleep(0)
    batcher.abort()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable, Unavailable]
    with pytest.raises(Unavailable):
        await ask(batcher, session, 1)
    await batcher.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("aborted ")]


async def test_an_error_that_comes_just_as_its_caller_leaves_is_nobody_s_business(session: GatedSession) -> None:
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    async with batching(session, ONE_BY_ONE) as batcher:
        call = ask(batcher, session, 0)
        await session.until_begun(1)
        batcher.abort()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        del call
    gc.collect()
    assert not complaints


async def test_what_a_graph_raises_reaches_the_one_who_asked(tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    floats = (TensorProto.FLOAT, ("batch", 2))
    content = graphs.graph([node], {"x": floats}, {"y": floats}, {"shape": np.array([1, 2])})
    session = opened(tmp_path / "model.onnx", content)
    declared = session.signature.inputs[0]
    session.signature = Signature.of([declared], [TensorInfo("y", declared.datatype, declared.shape)])
    async with batching(session, INLINE) as batcher:
        with pytest.raises(LOAD_ERRORS):
            await batcher.compute(feeds(session, x=np.ones((2, 2), np.float32)))


async def test_closing_ends_the_threads(session: GatedSession) -> None:
    batcher = Batcher(session, ONE_BY_ONE, name="closed")
    call = ask(batcher, session, 0)
    await session.until_begun(1)
    session.permits.release()
    await call
    await batcher.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("closed ")]


async def _until_it_runs(batcher: Batcher) -> None:
    """Returns when nothing waits any more."""
    await asyncio.sleep(0)  # the request has been put into the queue

    async def taken() -> bool:
        return batcher.waiting == 0

    await eventually(taken)
