"""Predictions for plain messages, without a task of their own: from the queue an outcome goes straight to the lane."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from modelyard.core.errors import DeadlineExceeded, ModelyardError, Unavailable
from modelyard.inference.execution.batches import Computed, QueuedRequest
from modelyard.inference.execution.feeds import Feeds
from modelyard.inference.protocol.plain import PlainMessage
from modelyard.inference.serving.versions import LoadedVersion

from .calls import PredictionCall


class Listener(Protocol):
    """Hears how a prediction ended: exactly one of the two, once, but neither if it was cancelled."""

    def answered(self, message: bytes) -> None:
        """The serialized answer."""

    def failed(self, error: Exception) -> None:
        """There is none."""


class JointListener(Protocol):
    """The same for a prediction that was for several calls."""

    def answered(self, head: bytes, raws: Sequence[bytes]) -> None:
        """What all answers begin with, and the contents of each output, of all calls in their order."""

    def failed(self, error: Exception) -> None:
        """There is no answer for any of them."""

    def to_be_parted(self) -> None:
        """Something is wrong with some of them, nobody knows which: each is to be predicted by itself."""


class Counting(Protocol):
    """Counts predictions."""

    def count(
        self, version: LoadedVersion, call: PredictionCall, rows: int, computed: Computed, arrival: int, calls: int = 1
    ) -> None:
        """Some that were answered, each with so many rows."""

    def count_failure(self, version: LoadedVersion, call: PredictionCall, error: BaseException, arrival: int) -> None:
        """One that was not."""


class _Prediction:
    """One request on its way."""

    __slots__ = ("_arrival", "_call", "_counting", "_over", "_request", "_version")

    def __init__(
        self, version: LoadedVersion, call: PredictionCall, request: QueuedRequest, counting: Counting
    ) -> None:
        self._arrival = time.perf_counter_ns()
        self._version = version
        self._call = call
        self._counting = counting
        self._over = False
        self._request = request

    def done(self) -> bool:
        """See `Outlet`."""
        return self._over

    def _enter(self) -> None:
        """Puts it into the version's queue; raises what `Batcher.admit` raises. Somebody must have the queue served."""
        self._version.acquire()
        self._version.batcher.admit(self._request, wake=False)

    def _end(self) -> None:
        self._over = True
        self._version.release()

    def _leave(self) -> None:
        """Nobody waits for it any more."""
        self._end()
        self._version.batcher.leave(self._request)

    def _count_failure(self, error: BaseException) -> None:
        self._counting.count_failure(self._version, self._call, error, self._arrival)


class PlainPrediction(_Prediction):
    """One call's prediction; the `Outlet` of its request. Used in the event loop."""

    __slots__ = ("_listener", "_plain")

    def __init__(
        self, version: LoadedVersion, plain: PlainMessage, call: PredictionCall, feeds: Feeds,
        counting: Counting, listener: Listener,
    ) -> None:  # fmt: skip
        super().__init__(version, call, QueuedRequest(feeds, self, call.expires), counting)
        self._plain = plain
        self._listener = listener

    def begin(self) -> None:
        """Puts it into the version's queue, or tells the listener at once that there is no room. Somebody must have the
        queue served."""
        try:
            self._enter()
        except ModelyardError as error:
            self.set_exception(error)

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        if not self._over:
            self._leave()
            self._count_failure(asyncio.CancelledError())

    def set_result(self, computed: Computed) -> None:
        """See `Outlet`."""
        try:
            message = self._version.plain.answer_message(self._plain, computed)
        except Exception as error:  # noqa: BLE001 - the listener's, like every other; the rest of the batch goes on
            self.set_exception(error)
            return
        self._end()
        self._listener.answered(message)
        self._counting.count(self._version, self._call, self._request.feeds.rows, computed, self._arrival)

    def set_exception(self, error: Exception) -> None:
        """See `Outlet`."""
        self._end()
        self._count_failure(error)
        self._listener.failed(error)


class JointPrediction(_Prediction):
    """The prediction of several calls that came together with messages of one form; the `Outlet` of their request."""

    __slots__ = ("_calls", "_gone", "_listener")

    def __init__(
        self, version: LoadedVersion, calls: int, call: PredictionCall, feeds: Feeds,
        counting: Counting, listener: JointListener,
    ) -> None:  # fmt: skip
        """`feeds` of all of them. `call`: what is known of each."""
        super().__init__(version, call, QueuedRequest(feeds, self, call.expires, calls=calls), counting)
        self._calls = calls
        self._gone = 0
        self._listener = listener

    def begin(self) -> bool:
        """Puts it into the version's queue. Whether there was room."""
        try:
            self._enter()
        except ModelyardError:
            self._end()
            return False
        return True

    def one_is_gone(self) -> bool:
        """One of the callers waits no more. Whether that was the last."""
        if self._over:
            return False
        self._gone += 1
        self._count_failure(asyncio.CancelledError())
        if self._gone < self._calls:
            return False
        self._leave()
        return True

    @property
    def staying(self) -> int:
        """How many callers still wait, as far as is known."""
        return self._calls - self._gone

    def cancel(self) -> None:
        """Nobody waits for any of them."""
        while not (self._over or self.one_is_gone()):
            pass

    def set_result(self, computed: Computed) -> None:
        """See `Outlet`."""
        rows = self._request.feeds.rows
        if any(contents.shape[:1] != (rows,) for contents in computed.outputs):
            self._version.batcher.stop_batching()
            self._part()
            return
        try:
            head = self._version.plain.answer_head(computed, self._calls)
        except Exception:  # noqa: BLE001 - each call will hear of it
            self._part()
            return
        self._end()
        self._listener.answered(head, [contents.raw for contents in computed.outputs])
        self._counting.count(self._version, self._call, rows // self._calls, computed, self._arrival, self.staying)

    def set_exception(self, error: Exception) -> None:
        """See `Outlet`."""
        if not isinstance(error, DeadlineExceeded | Unavailable):
            self._part()
            return
        self._end()
        for _ in range(self.staying):
            self._count_failure(error)
        self._listener.failed(error)

    def _part(self) -> None:
        self._end()
        self._listener.to_be_parted()
