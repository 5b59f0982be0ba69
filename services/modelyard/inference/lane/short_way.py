"""The short way of plain messages: answered without a task, alone or together with others that came with them.

Whatever is unusual about a call, or wrong, is left to the lane's long way, which knows all there is to say about it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import NamedTuple

from modelyard.core.errors import ModelyardError
from modelyard.core.tokens import Caller as Identity
from modelyard.core.trace_context import TRACEPARENT
from modelyard.core.tracing import SAMPLING
from modelyard.inference.calls import PredictionCall
from modelyard.inference.plain_prediction import JointPrediction, PlainPrediction
from modelyard.inference.prediction import Predictor

from .arrivals import ArrivingCall, ArrivingHeaders, JointArrival
from .endings import Endings
from .frames import read_timeout
from .metadata import CallMetadata


class _KnownCaller(NamedTuple):
    """What the headers of a call say, and those of thousands more."""

    identity: Identity
    metadata: CallMetadata


class ShortWay:
    """Begins answers. Use it in one event loop."""

    def __init__(
        self, predictor: Predictor, endings: Endings, identify: Callable[[CallMetadata], Identity],
        ended: Callable[[int], object], arrived: Callable[[ArrivingCall], None],
    ) -> None:  # fmt: skip
        """`identify`: who calls; raises ModelyardError. `ended` is told the id of each answer that has come to its end.
        `arrived` takes calls that came together and must be answered one by one after all."""
        self.predictor = predictor
        self.endings = endings
        self.ended = ended
        self.arrived = arrived
        self._identify = identify

    def begin(self, call: ArrivingCall) -> PlainAnswer | None:
        """An answer on its way; None if it must go the long one."""
        prediction = self._prediction_call(call)
        if prediction is None or call.plain is None:
            return None
        answer = PlainAnswer(self, call, prediction.caller)
        answer.prediction = self.predictor.begin(call.plain, prediction, answer)
        return None if answer.prediction is None else answer

    def begin_together(self, arrival: JointArrival) -> JointAnswer | None:
        """The same for calls that have come together; None if each must be answered by itself."""
        prediction = self._prediction_call(arrival)
        if prediction is None:
            return None
        answer = JointAnswer(self, arrival, prediction.caller)
        answer.prediction = self.predictor.begin_together(arrival.first, arrival.count, arrival.raw, prediction, answer)
        return None if answer.prediction is None else answer

    def expires(self, call: ArrivingCall | JointArrival) -> float | None:
        """The event loop's time after which the caller waits no more. Raises MalformedContent."""
        return None if call.timeout is None else call.time + read_timeout(call.timeout)

    def _prediction_call(self, call: ArrivingCall | JointArrival) -> PredictionCall | None:
        """What a prediction needs to know; None if something about headers or timeout is unusual or wrong."""
        known = self._known(call.headers)
        if known is None:
            return None
        try:
            return PredictionCall(self.expires(call), known.identity, known.metadata)
        except ModelyardError:
            return None

    def _known(self, headers: ArrivingHeaders) -> _KnownCaller | None:
        """Who makes calls with these headers; None if they need a closer look each time."""
        known = headers.note
        if not isinstance(known, _KnownCaller) or known.identity.expire_time <= time.time():
            known = headers.note = self._look(headers)
        return None if SAMPLING.available and SAMPLING.ratio else known

    def _look(self, headers: ArrivingHeaders) -> _KnownCaller | None:
        if TRACEPARENT.encode() in headers.fields:
            return None
        metadata = CallMetadata(headers.fields)
        try:
            return _KnownCaller(self._identify(metadata), metadata)
        except ModelyardError:
            return None


class PlainAnswer:
    """The answer to one call; the `Listener` of its prediction."""

    __slots__ = ("_arrival_ns", "_call", "_identity", "_way", "over", "prediction")

    def __init__(self, way: ShortWay, call: ArrivingCall, identity: Identity) -> None:
        self._arrival_ns = time.perf_counter_ns()
        self._way = way
        self._call = call
        self._identity = identity
        self.prediction: PlainPrediction | None = None
        self.over = False
        """Whether the call has been answered or dropped."""

    def gone(self, _request_id: bytes | None) -> None:
        """The caller waits no more."""
        self.cancel()

    def cancel(self) -> None:
        """Nobody waits any more."""
        if self.prediction is not None:
            self.prediction.cancel()
        self.failed(asyncio.CancelledError())

    def answered(self, message: bytes) -> None:
        """See `Listener`."""
        self._end()
        self._way.endings.answered(self._call, message, time.perf_counter_ns() - self._arrival_ns)

    def failed(self, error: BaseException) -> None:
        """See `Listener`."""
        self._end()
        ns = time.perf_counter_ns() - self._arrival_ns
        self._way.endings.failed(self._call, error, self._identity, ns)

    def _end(self) -> None:
        self.over = True
        self._way.ended(self._call.id)


class JointAnswer:
    """The answers to calls that came together; the `JointListener` of their prediction."""

    __slots__ = ("_arrival", "_arrival_ns", "_identity", "_way", "over", "prediction")

    def __init__(self, way: ShortWay, arrival: JointArrival, identity: Identity) -> None:
        self._arrival_ns = time.perf_counter_ns()
        self._way = way
        self._arrival = arrival
        self._identity = identity
        self.prediction: JointPrediction | None = None
        self.over = False
        """Whether all calls have been answered or dropped."""

    def gone(self, request_id: bytes | None) -> None:
        """One of the callers waits no more."""
        self._way.endings.left(self._identity, request_id, time.perf_counter_ns() - self._arrival_ns)
        if self.prediction is not None and self.prediction.one_is_gone():
            self._end()
            self._arrival.drop()

    def cancel(self) -> None:
        """Nobody waits any more."""
        if self.prediction is not None:
            self.prediction.cancel()
        self.failed(asyncio.CancelledError())

    def answered(self, head: bytes, raws: Sequence[bytes]) -> None:
        """See `JointListener`."""
        self._end()
        self._arrival.answer(head, raws)
        staying = self.prediction.staying if self.prediction is not None else 0
        self._way.endings.count("OK", time.perf_counter_ns() - self._arrival_ns, staying)

    def failed(self, error: BaseException) -> None:
        """See `JointListener`."""
        self._end()
        ns = time.perf_counter_ns() - self._arrival_ns
        for call in self._arrival.part():
            self._way.endings.failed(call, error, self._identity, ns)

    def to_be_parted(self) -> None:
        """See `JointListener`."""
        self._end()
        for call in self._arrival.part():
            self._way.arrived(call)
        # Behind the batch whose outcomes are being told.
        asyncio.get_running_loop().call_soon(self._way.predictor.serve_begun, context=Context())

    def _end(self) -> None:
        self.over = True
        self._way.ended(self._arrival.id)
