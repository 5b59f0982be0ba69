"""The express lane: one ModelInfer from bytes to bytes, as an ASGI application that Envoy calls.

Whoever changes something here keeps the plain lane (`core.interceptors`, `servicer`) in mind: tests hold the answers,
errors and log lines of both equal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, NamedTuple, TypeAlias

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

from .attendance import Attendance, Caller, ComingBody, Receive
from .frames import PREFIX_BYTES, announced_bytes, error_headers, frame, read_timeout, too_large, unframe
from .metadata import CallMetadata

Scope: TypeAlias = dict[str, Any]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]

METHOD = method_path("ModelInfer")
SLOW_BYTES = 256 * 1024
"""A compressed message above this is decompressed in a thread."""
_REMEMBERED = 10_000
"""Callers whose tokens need not be looked at again."""

_START = {
    "type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/grpc")], "trailers": True,
}  # fmt: skip
_OK = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}
_NOTHING = {"type": "http.response.body", "body": b""}


class _Gone(Exception):
    """The caller vanished before its request was whole."""


class _TooSlow(Exception):
    """The request was not whole in time, and its caller has been told so."""


class _Refusal(NamedTuple):
    """What it takes to answer with an error."""

    metadata: CallMetadata
    identity: Identity
    arrival_ns: int
    send: Send


class ExpressLane:
    """Answers ModelInfer. `answer` is the ASGI application; use it in one event loop."""

    def __init__(
        self, predictor: Predictor, authorizer: Authorizer, metrics: MethodMetrics, *, max_request_bytes: int
    ) -> None:
        self._predictor = predictor
        self._authorizer = authorizer
        self._metrics = metrics
        self._max_request_bytes = max_request_bytes
        self._attendance = Attendance()
        self._admitted: dict[bytes, Identity] = {}
        self._time = asyncio.get_running_loop().time

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call."""
        arrival_ns = time.perf_counter_ns()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        metadata = CallMetadata(headers)
        identity = ANONYMOUS
        trace = begin(METHOD, metadata)
        if trace is not None:
            enter(trace)
            if trace.recorded:
                trace.note(request_id=str(metadata.get(REQUEST_ID_HEADER, "")))
        try:
            expires = self._time() + read_timeout(headers[b"grpc-timeout"]) if b"grpc-timeout" in headers else None
            identity = self._identify(metadata, headers.get(b"authorization", b""))
            if expires is None:
                body = await _read(receive, self._max_request_bytes)
            else:
                body = await self._read_until(expires, receive, _Refusal(metadata, identity, arrival_ns, send))
            request = await self._parse(body, headers.get(b"grpc-encoding"))
            response = await self._predict(request, PredictionCall(expires, identity, metadata), receive)
        except _TooSlow:
            return
        except _Gone:
            self._count("CANCELLED", time.perf_counter_ns() - arrival_ns)
            return
        except BaseException as error:  # noqa: BLE001 - translated, as in core.interceptors
            await self._fail(error, metadata, identity, time.perf_counter_ns() - arrival_ns, send)
            return
        self._count("OK", time.perf_counter_ns() - arrival_ns)
        await send(_START)
        await send({"type": "http.response.body", "body": response})
        await send(_OK)

    def _identify(self, metadata: CallMetadata, token: bytes) -> Identity:
        """Who calls. Remembers who may, until their token expires: callers send thousands of calls with one token."""
        identity = self._admitted.get(token)
        if identity is None or identity.expire_time <= time.time():
            identity = self._authorizer.authorize(METHOD, metadata)
            if len(self._admitted) >= _REMEMBERED:
                self._admitted.clear()
            self._admitted[token] = identity
        return identity

    async def _read_until(self, expires: float, receive: Receive, refusal: _Refusal) -> bytes:
        """The whole body. A caller whose time is over first is told so beside this: `receive` must not be cancelled."""
        context = copy_context()
        late: list[asyncio.Task[None]] = []

        def give_up() -> None:
            error = DeadlineExceeded("the time allowed was over before the request was whole")
            ns = time.perf_counter_ns() - refusal.arrival_ns
            failing = self._fail(error, refusal.metadata, refusal.identity, ns, refusal.send)
            late.append(asyncio.get_running_loop().create_task(failing, context=context))

        coming = ComingBody(expires, give_up)
        self._attendance.expect(coming)
        try:
            body = await _read(receive, self._max_request_bytes)
        except BaseException as error:
            if late:
                raise _TooSlow from error
            raise
        finally:
            coming.arrive()
        if late:
            raise _TooSlow
        return body

    async def _parse(self, body: bytes, encoding: bytes | None) -> pb.ModelInferRequest:
        if body[:1] == b"\1" and len(body) > SLOW_BYTES:
            message = await asyncio.to_thread(unframe, body, encoding, self._max_request_bytes)
        else:
            message = unframe(body, encoding, self._max_request_bytes)
        try:
            return pb.ModelInferRequest.FromString(message)
        except DecodeError as error:
            raise MalformedContent(f"the message is not a request of {METHOD}") from error

    async def _predict(self, request: pb.ModelInferRequest, call: PredictionCall, receive: Receive) -> bytes:
        """The answer on the wire. Cancelled when the caller goes."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - Envoy runs every call in a task
        caller = Caller(task, receive)
        self._attendance.wait(caller)
        try:
            response = await self._predictor.predict(request, call)
        finally:
            caller.leave()
        return frame(response.SerializeToString())

    async def _fail(
        self, error: BaseException, metadata: CallMetadata, identity: Identity, ns: int, send: Send
    ) -> None:
        """Answers with nothing but the status of `error`: what has no body yet, the door may send to another pod."""
        request_id = request_id_of(metadata)
        if isinstance(error, asyncio.CancelledError):
            self._count("CANCELLED", ns)
            log_call(METHOD, "CANCELLED", ns, identity, request_id=request_id)
            return
        if not isinstance(error, ModelyardError):
            log_unhandled(METHOD, error, request_id=request_id)
        status = to_status(error, request_id=request_id)
        code = _NAMES[status.code]
        message = str(error) if isinstance(error, ModelyardError) else ""
        self._count(code, ns)
        log_call(METHOD, code, ns, identity, message=message, request_id=request_id)
        await send({"type": "http.response.start", "status": 200, "headers": error_headers(status, request_id)})
        await send(_NOTHING)

    def _count(self, code: str, ns: int) -> None:
        self._metrics.begin()
        self._metrics.end(code, ns)
        trace = current()
        if trace is not None:
            trace.end(code)


_NAMES = {code.value[0]: code.name for code in StatusCode}


async def _read(receive: Receive, limit: int) -> bytes:
    """The whole body. Raises TooLarge as soon as it is known, _Gone if the caller vanishes first."""
    event = await receive()
    parts: list[bytes] = []
    size = 0
    while event["type"] == "http.request":
        part: bytes = event.get("body", b"")
        if not parts and not event.get("more_body"):
            return part  # the common case: no copy
        parts.append(part)
        size += len(part)
        announced = announced_bytes(parts[0])
        if announced > limit or size > PREFIX_BYTES + limit:
            raise too_large(max(announced, size - PREFIX_BYTES), limit)
        if not event.get("more_body"):
            return b"".join(parts)
        event = await receive()
    raise _Gone
