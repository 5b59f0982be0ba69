"""The express lane: ModelInfer from bytes to bytes, for calls that Envoy hands over.

Whoever changes something here keeps the plain lane (`core.interceptors`, `servicer`) in mind: tests hold the answers,
errors and log lines of both equal.
"""

from __future__ import annotations

import asyncio
import time

from google.protobuf.message import DecodeError

from modelyard.core.errors import DeadlineExceeded, MalformedContent
from modelyard.core.interceptors import ANONYMOUS, REQUEST_ID_HEADER, Authorizer
from modelyard.core.metrics import MethodMetrics
from modelyard.core.tokens import Caller as Identity
from modelyard.core.trace_context import enter
from modelyard.core.tracing import begin
from modelyard.inference.calls import PredictionCall
from modelyard.inference.prediction import Predictor
from modelyard.oip import open_inference_pb2 as pb

from .arrivals import ArrivingCall, JointArrival
from .endings import METHOD, Endings
from .frames import unframe
from .metadata import CallMetadata
from .short_way import JointAnswer, PlainAnswer, ShortWay

SLOW_BYTES = 256 * 1024
"""A compressed message above this is decompressed in a thread."""
_REMEMBERED = 10_000
"""Callers whose tokens need not be looked at again."""


class _NeverWhole(Exception):
    """The caller vanished before its request was whole."""


class ExpressLane:
    """Answers ModelInfer: the `Receiver` of a crossing. Use it in one event loop."""

    def __init__(
        self, predictor: Predictor, authorizer: Authorizer, metrics: MethodMetrics, *, max_request_bytes: int
    ) -> None:
        self._predictor = predictor
        self._authorizer = authorizer
        self._endings = Endings(metrics)
        self._max_request_bytes = max_request_bytes
        self._admitted: dict[bytes, Identity] = {}
        self._loop = asyncio.get_running_loop()
        self._answering: dict[int, asyncio.Task[None] | PlainAnswer | JointAnswer] = {}
        self._bodies: dict[int, asyncio.Future[None]] = {}
        self._short = ShortWay(
            predictor, self._endings, self._identify,
            ended=lambda identifier: self._answering.pop(identifier, None), arrived=self.arrived,
        )  # fmt: skip

    def arrived(self, call: ArrivingCall) -> None:
        """See `Receiver`."""
        answer = self._short.begin(call)
        if answer is None:
            self._answering[call.id] = self._loop.create_task(self._answer(call, None))
        elif not answer.over:
            self._answering[call.id] = answer

    def arrived_together(self, arrival: JointArrival) -> None:
        """See `Receiver`."""
        answer = self._short.begin_together(arrival)
        if answer is None:
            for call in arrival.part():
                self.arrived(call)
        elif not answer.over:
            self._answering[arrival.id] = answer

    def coming(self, call: ArrivingCall) -> None:
        """See `Receiver`."""
        body = self._bodies[call.id] = self._loop.create_future()
        self._answering[call.id] = self._loop.create_task(self._answer(call, body))

    def completed(self, call: ArrivingCall) -> None:
        """See `Receiver`."""
        body = self._bodies.get(call.id)
        if body is not None and not body.done():
            body.set_result(None)

    def gone(self, identifier: int, request_id: bytes | None) -> None:
        """See `Receiver`."""
        answering = self._answering.get(identifier)
        if isinstance(answering, PlainAnswer | JointAnswer):
            answering.gone(request_id)
        elif answering is not None:
            # Not at once: a task that is cancelled before its first step never enters its coroutine, and so would never
            # drop the call. Its first step stands before this in the loop.
            self._loop.call_soon(answering.cancel)

    def all_told(self) -> None:
        """See `Receiver`."""
        self._predictor.serve_begun()

    async def give_up(self) -> None:
        """Cancels what is not answered yet; returns when that has ended."""
        await asyncio.sleep(0)  # the first step of each, as above
        answering = list(self._answering.values())
        for one in answering:
            one.cancel()
        tasks = [one for one in answering if isinstance(one, asyncio.Task)]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, call: ArrivingCall, body: asyncio.Future[None] | None) -> None:
        """One call. `body`: done when the body is here, None if it is."""
        arrival_ns = time.perf_counter_ns()
        metadata = CallMetadata(call.fields)
        identity = ANONYMOUS
        trace = begin(METHOD, metadata)
        if trace is not None:
            enter(trace)
            if trace.recorded:
                trace.note(request_id=str(metadata.get(REQUEST_ID_HEADER, "")))
        try:
            expires = self._short.expires(call)
            identity = self._identify(metadata)
            if body is not None:
                await _until_whole(body, expires)
            request = await self._parse(call)
            prediction = PredictionCall(expires, identity, metadata)
            response = await self._predictor.predict(request, prediction, call.plain)
            message = response.SerializeToString()
        except _NeverWhole:
            code = "CANCELLED"
            self._endings.count(code, time.perf_counter_ns() - arrival_ns)
            call.drop()
        except BaseException as error:  # noqa: BLE001 - translated, as in core.interceptors
            code = self._endings.failed(call, error, identity, time.perf_counter_ns() - arrival_ns)
        else:
            code = "OK"
            self._endings.answered(call, message, time.perf_counter_ns() - arrival_ns)
        finally:
            self._answering.pop(call.id, None)
            if body is not None:
                self._bodies.pop(call.id, None)
        if trace is not None:
            trace.end(code)

    def _identify(self, metadata: CallMetadata) -> Identity:
        """Who calls. Remembers who may, until their token expires: callers send thousands of calls with one token."""
        token = metadata.raw(b"authorization")
        identity = self._admitted.get(token)
        if identity is None or identity.expire_time <= time.time():
            identity = self._authorizer.authorize(METHOD, metadata)
            if len(self._admitted) >= _REMEMBERED:
                self._admitted.clear()
            self._admitted[token] = identity
        return identity

    async def _parse(self, call: ArrivingCall) -> pb.ModelInferRequest:
        message = call.message
        if message is None:
            unframing = (call.body, call.fields.get(b"grpc-encoding"), self._max_request_bytes)
            if call.body[:1] == b"\1" and len(call.body) > SLOW_BYTES:
                message = await asyncio.to_thread(unframe, *unframing)
            else:
                message = unframe(*unframing)
        try:
            return pb.ModelInferRequest.FromString(message)
        except DecodeError as error:
            raise MalformedContent(f"the message is not a request of {METHOD}") from error


async def _until_whole(body: asyncio.Future[None], expires: float | None) -> None:
    try:
        async with asyncio.timeout_at(expires):
            await body
    except TimeoutError:
        raise DeadlineExceeded("the time allowed was over before the request was whole") from None
    except asyncio.CancelledError:
        raise _NeverWhole from None
