"""The runner's queue, with a session that computes when the test lets it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from modelyard.core.errors import DeadlineExceeded, InvalidFields, ResourceExhausted
from modelyard.inference.running import Computed, Runner
from modelyard.inference.sessions import GraphSession, RuntimeOptions
from modelyard.oip.tensors import Array
from support import graphs
from support.waiting import eventually

ROW = {"x": np.array([[1, 2]], np.float32)}


class GatedSession(GraphSession):
    """A real session that waits for a permit before each run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, RuntimeOptions())
        self.permits = threading.Semaphore(0)
        self.begun = 0

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        self.begun += 1
        assert self.permits.acquire(timeout=30)
        return super().run(feeds, outputs)

    async def until_begun(self, count: int) -> None:
        """Returns when so many runs have begun."""

        async def there() -> bool:
            return self.begun >= count

        await eventually(there)


@pytest.fixture
def session(tmp_path: Path) -> GatedSession:
    path = tmp_path / "model.onnx"
    path.write_bytes(graphs.scale(2))
    return GatedSession(path)


@asynccontextmanager
async def running(session: GatedSession, *, threads: int = 1, queue_size: int = 2) -> AsyncIterator[Runner]:
    runner = Runner(session, threads=threads, queue_size=queue_size, name="test")
    try:
        yield runner
    finally:
        session.permits.release(100)
        await runner.close()


def start(runner: Runner, expires: float | None = None) -> asyncio.Task[Computed]:
    return asyncio.create_task(runner.run(ROW, ["y"], expires))


async def test_a_prediction_comes_with_raw_contents_and_its_times(session: GatedSession) -> None:
    async with running(session) as runner:
        session.permits.release()
        computed = await start(runner)
    assert [output.shape for output in computed.outputs] == [(1, 2)]
    assert np.frombuffer(computed.outputs[0].raw, "<f4").tolist() == [2, 4]
    assert min(computed.queue_ns, computed.infer_ns, computed.output_ns) > 0


async def test_one_more_than_threads_and_queue_is_refused_and_the_place_is_given_back(session: GatedSession) -> None:
    async with running(session, threads=2, queue_size=1) as runner:
        accepted = [start(runner) for _ in range(3)]
        await session.until_begun(2)
        with pytest.raises(ResourceExhausted) as raised:
            await runner.run(ROW, ["y"])
        assert raised.value.retry_after
        session.permits.release(4)
        await asyncio.gather(*accepted)
        await start(runner)


async def test_a_cancelled_prediction_that_waits_is_never_begun(session: GatedSession) -> None:
    async with running(session) as runner:
        first, second, third = start(runner), start(runner), start(runner)
        await session.until_begun(1)
        second.cancel()
        session.permits.release(3)
        await asyncio.gather(first, third)
        assert second.cancelled()
        assert session.begun == 2


async def test_cancelling_what_is_being_computed_disturbs_nobody(session: GatedSession) -> None:
    async with running(session) as runner:
        first, second = start(runner), start(runner)
        await session.until_begun(1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        session.permits.release(2)
        assert (await second).outputs[0].shape == (1, 2)


async def test_a_cancelled_prediction_keeps_its_place_until_its_thread_is_free(session: GatedSession) -> None:
    async with running(session, threads=1, queue_size=0) as runner:
        first = start(runner)
        await session.until_begun(1)
        first.cancel()
        with pytest.raises(ResourceExhausted):
            await runner.run(ROW, ["y"])


async def test_a_time_that_passes_in_the_queue_ends_the_wait_at_once(session: GatedSession) -> None:
    async with running(session) as runner:
        first = start(runner)
        await session.until_begun(1)
        hurried = start(runner, expires=asyncio.get_running_loop().time() + 0.01)
        with pytest.raises(DeadlineExceeded):
            await hurried
        assert not first.done()
        session.permits.release(2)
        await first
    assert session.begun == 1


async def test_a_time_that_passes_while_computing_changes_nothing(session: GatedSession) -> None:
    async with running(session) as runner:
        loop = asyncio.get_running_loop()
        expires = loop.time() + 0.2
        call = start(runner, expires)
        await session.until_begun(1)

        async def passed() -> bool:
            return loop.time() > expires + 0.05

        await eventually(passed)
        session.permits.release()
        assert (await call).outputs


async def test_what_the_graph_raises_reaches_the_one_who_asked(session: GatedSession) -> None:
    async with running(session) as runner:
        session.permits.release(2)
        good, bad = start(runner), asyncio.create_task(runner.run(ROW, ["no such output"]))
        assert (await good).outputs
        with pytest.raises(InvalidFields):
            await bad


async def test_closing_answers_everything_that_was_accepted(session: GatedSession) -> None:
    runner = Runner(session, threads=1, queue_size=5, name="test")
    calls = [start(runner) for _ in range(4)]
    await session.until_begun(1)
    closing = asyncio.create_task(runner.close())
    session.permits.release(4)
    assert all(computed.outputs for computed in await asyncio.gather(*calls))
    await closing
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test ")]


@pytest.mark.parametrize("seed", range(5))
async def test_cancels_at_any_point_never_change_another_s_answer(session: GatedSession, seed: int) -> None:
    random = np.random.default_rng(seed)
    session.permits.release(10_000)
    async with running(session, threads=2, queue_size=1_000) as runner:

        async def one(value: float, *, doomed: bool) -> None:
            feeds = {"x": np.array([[value, value]], np.float32)}
            call = asyncio.create_task(runner.run(feeds, ["y"]))
            if doomed:
                for _ in range(int(random.integers(0, 20))):
                    await asyncio.sleep(0)
                call.cancel()
            try:
                computed = await call
            except asyncio.CancelledError:
                assert doomed
            else:
                assert np.frombuffer(computed.outputs[0].raw, "<f4").tolist() == [2 * value, 2 * value]

        await asyncio.gather(*(one(float(i), doomed=bool(random.integers(0, 2))) for i in range(300)))


async def test_text_comes_out_as_bytes_behind_lengths(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_bytes(graphs.identity(TensorProto.STRING))
    runner = Runner(GraphSession(path, RuntimeOptions()), threads=1, queue_size=0, name="text")
    computed = await runner.run({"x": np.array([["é", ""]], dtype=object)}, ["y"])
    await runner.close()
    assert computed.outputs[0].raw == b"\2\0\0\0\xc3\xa9\0\0\0\0"
