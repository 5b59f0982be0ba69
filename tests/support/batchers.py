"""A batcher with a real session that waits for the test's permission, and requests for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from modelyard.inference.execution.batches import Computed
from modelyard.inference.execution.batching import Batcher
from modelyard.inference.execution.feeds import Feeds
from modelyard.inference.execution.plan import ExecutionPlan
from modelyard.inference.execution.sessions import GraphSession, RunControl, RuntimeOptions
from modelyard.oip.tensors import Array

from .waiting import eventually


class GatedSession(GraphSession):
    """A real session that waits for a permit before each run. In the event loop it would wait for ever."""

    def __init__(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        super().__init__(path, RuntimeOptions(device="cpu"))
        self.permits = threading.Semaphore(0)
        self.begun: list[int] = []
        """The rows of every run that has begun."""
        self.ended = 0

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], control: RunControl | None = None) -> list[Array]:
        self.begun.append(len(next(iter(feeds.values()))))
        assert self.permits.acquire(timeout=60)
        try:
            return super().run(feeds, outputs, control)
        finally:
            self.ended += 1

    async def until_begun(self, count: int) -> None:
        """Returns when so many runs have begun."""

        async def there() -> bool:
            return len(self.begun) >= count

        await eventually(there)


@asynccontextmanager
async def batching(session: GraphSession, plan: ExecutionPlan) -> AsyncIterator[Batcher]:
    """A batcher that is closed in the end, whatever it still computes."""
    batcher = Batcher(session, plan, name="batcher of a test")
    try:
        yield batcher
    finally:
        batcher.abort()
        if isinstance(session, GatedSession):
            session.permits.release(1000)
        await batcher.close()


def feeds(session: GraphSession, **arrays: Array) -> Feeds:
    """A checked request for every output."""
    rows = len(next(iter(arrays.values()))) if session.signature.batched else 1
    return Feeds.of(arrays, session.all_outputs, rows, session.signature)


def rows(*values: int) -> Array:
    """Integers [rows, 1]."""
    return np.array(values, np.int64).reshape(-1, 1)


def ask(
    batcher: Batcher, session: GraphSession, *values: int, expires: float | None = None, priority: int = 0
) -> asyncio.Task[Computed]:
    """A request with these integers as its rows."""
    return asyncio.create_task(batcher.compute(feeds(session, x=rows(*values)), expires, priority))


def numbers(computed: Computed, dtype: str = "<f4") -> list[float]:
    """All elements of the only output."""
    (output,) = computed.outputs
    array = np.frombuffer(output.raw, dtype).reshape(output.shape)
    assert array.ndim == 2
    return array.ravel().tolist()
