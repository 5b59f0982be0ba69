"""The express lane: ModelInfer from bytes to bytes, for calls that Envoy hands over.

Whoever changes something here keeps the plain lane (`core.interceptors`, `servicer`) in mind: tests hold the answers,
errors and log lines of both equal.
"""

from __future__ import annotations

import asyncio
import time

from google.protobuf.message import DecodeError
from grpc import StatusCode

from modelyard.core.errors import DeadlineExceeded, MalformedContent, ModelyardError, to_status
from modelyard.core.interceptors import ANONYMOUS, REQUEST_ID_HEADER, Authorizer, log_call, log_unhandled, request_id_of
from modelyard.core.metrics import MethodMetrics
from modelyard.core.tokens import Caller as Identity
from modelyard.core.trace_context import current, enter
from modelyard.core.tracing import begin
from modelyard.inference.calls import PredictionCall
from modelyard.inference.prediction import Predictor
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import method_path

from .crossing import ArrivingCall
from .frames import error_headers, read_timeout, unframe
from .metadata import CallMetadata

METHOD = method_path("ModelInfer")
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
        self._metrics = metrics
        self._max_request_bytes = max_request_bytes
        self._admitted: dict[bytes, Identity] = {}
        self._loop = asyncio.get_running_loop()
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._bodies: dict[int, asyncio.Future[None]] = {}

    def arrived(self, call: ArrivingCall) -> None:
        """See `Receiver`."""
        self._answering[call.id] = self._loop.create_task(self._answer(call, None))

    def coming(self, call: ArrivingCall) -> None:
        """See `Receiver`."""
        body = self._bodies[call.id] = self._loop.create_future()
        self._answering[call.id] = self._loop.create_task(self._answer(call, body))

    def completed(self, call: ArrivingCall) -> None:
        """See `Receiver`."""
        body = self._bodies.get(call.id)
        if body is not None and not body.done():
            body.set_result(None)

    def gone(self, call_id: int) -> None:
        """See `Receiver`."""
        task = self._answering.get(call_id)
        if task is not None:
            # Not at once: a task that is cancelled before its first step never enters its coroutine, and so would never
            # drop the call. Its first step stands before this in the loop.
            self._loop.call_soon(task.cancel)

    async def give_up(self) -> None:
        """Cancels what is not answered yet; returns when that has ended."""
        await asyncio.sleep(0)  # the first step of each, as above
        answering = list(self._answering.values())
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)

    async def _answer(self, call: ArrivingCall, body: asyncio.Future[None] | None) -> None:
        """One call. `body`: done when the body is here, None if it is."""
        arrival_ns = time.perf_counter_ns()
        headers = call.headers
        metadata = CallMetadata(headers)
        identity = ANONYMOUS
        trace = begin(METHOD, metadata)
        if trace is not None:
            enter(trace)
            if trace.recorded:
                trace.note(request_id=str(metadata.get(REQUEST_ID_HEADER, "")))
        try:
            expires = None if call.timeout is None else self._loop.time() + read_timeout(call.timeout)
            identity = self._identify(metadata, headers.get(b"authorization", b""))
            if body is not None:
                await _until_whole(body, expires)
            request = await self._parse(call)
            response = await self._predictor.predict(request, PredictionCall(expires, identity, metadata))
            message = response.SerializeToString()
        except _NeverWhole:
            self._count("CANCELLED", time.perf_counter_ns() - arrival_ns)
            call.drop()
        except BaseException as error:  # noqa: BLE001 - translated, as in core.interceptors
            self._fail(error, metadata, identity, time.perf_counter_ns() - arrival_ns, call)
        else:
            self._count("OK", time.perf_counter_ns() - arrival_ns)
            call.answer(message)
        finally:
            self._answering.pop(call.id, None)
            if body is not None:
                self._bodies.pop(call.id, None)

    def _identify(self, metadata: CallMetadata, token: bytes) -> Identity:
        """Who calls. Remembers who may, until their token expires: callers send thousands of calls with one token."""
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
            unframing = (call.body, call.headers.get(b"grpc-encoding"), self._max_request_bytes)
            if call.body[:1] == b"\1" and len(call.body) > SLOW_BYTES:
                message = await asyncio.to_thread(unframe, *unframing)
            else:
                message = unframe(*unframing)
        try:
            return pb.ModelInferRequest.FromString(message)
        except DecodeError as error:
            raise MalformedContent(f"the message is not a request of {METHOD}") from error

    def _fail(
        self, error: BaseException, metadata: CallMetadata, identity: Identity, ns: int, call: ArrivingCall
    ) -> None:
        """Answers with nothing but the status of `error`: what has no body yet, the door may send to another pod."""
        request_id = request_id_of(metadata)
        if isinstance(error, asyncio.CancelledError):
            self._count("CANCELLED", ns)
            log_call(METHOD, "CANCELLED", ns, identity, request_id=request_id)
            call.drop()
            return
        if not isinstance(error, ModelyardError):
            log_unhandled(METHOD, error, request_id=request_id)
        status = to_status(error, request_id=request_id)
        code = _NAMES[status.code]
        message = str(error) if isinstance(error, ModelyardError) else ""
        self._count(code, ns)
        log_call(METHOD, code, ns, identity, message=message, request_id=request_id)
        call.refuse(error_headers(status, request_id))

    def _count(self, code: str, ns: int) -> None:
        self._metrics.begin()
        self._metrics.end(code, ns)
        trace = current()
        if trace is not None:
            trace.end(code)


_NAMES = {code.value[0]: code.name for code in StatusCode}


async def _until_whole(body: asyncio.Future[None], expires: float | None) -> None:
    try:
        async with asyncio.timeout_at(expires):
            await body
    except TimeoutError:
        raise DeadlineExceeded("the time allowed was over before the request was whole") from None
    except asyncio.CancelledError:
        raise _NeverWhole from None
