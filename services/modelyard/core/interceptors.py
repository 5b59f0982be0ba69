"""The one interceptor of every service: request id, size, authorisation, error translation, metrics, trace, one log
line per call.

Deny by default: a method that `METHOD_TABLE` does not name is refused before its handler is looked up.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from .errors import MalformedContent, ModelyardError, PermissionDenied, TokenInvalid, TokenMissing, TooLarge, to_status
from .logs import get_logger
from .metrics import CallMetrics, MethodMetrics
from .permissions import METHOD_TABLE, Access, Permission
from .tokens import Caller, TokenVerifier
from .trace_context import Trace, enter
from .tracing import begin

REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
# Calls whose success is not worth a line: probes, and predictions, of which there are tens of thousands a second.
_QUIET = ("/grpc.health.v1.Health/", "/grpc.reflection.", "/inference.GRPCInferenceService/ModelInfer")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

ANONYMOUS = Caller("anonymous", "", frozenset(), frozenset(), "", 0.0)

_caller: ContextVar[Caller] = ContextVar("caller", default=ANONYMOUS)
_request_id: ContextVar[str] = ContextVar("request_id", default="")

log = get_logger()


def current_caller() -> Caller:
    """Who made the call that is being answered; ANONYMOUS in a public method and outside any call."""
    return _caller.get()


def current_request_id() -> str:
    """The id of the call that is being answered; give it on to other services as `x-request-id`."""
    return _request_id.get()


class Authorizer:
    """Says who is calling and whether they may."""

    def __init__(self, verifier: TokenVerifier, *, anonymous: Caller | None = None) -> None:
        """`anonymous`: who a caller without a token is taken for; None refuses them."""
        self._verifier = verifier
        self._anonymous = anonymous

    def authorize(self, method: str, metadata: Mapping[str, str | bytes]) -> Caller:
        """The caller, or raises TokenMissing, TokenInvalid, TokenExpired or PermissionDenied."""
        needed = METHOD_TABLE.get(method)
        if needed is Access.PUBLIC:
            return ANONYMOUS
        caller = self._identify(metadata)
        if needed is Access.ANY_TOKEN:
            return caller
        if not isinstance(needed, Permission) or not caller.may(needed):
            name = needed.value if needed else "none: nobody may call this method"
            raise PermissionDenied(f"this call needs the permission {name}", metadata={"permission": name})
        return caller

    def _identify(self, metadata: Mapping[str, str | bytes]) -> Caller:
        header = metadata.get("authorization")
        if header is None:
            if self._anonymous is not None:
                return self._anonymous
            raise TokenMissing("no token: send the metadata `authorization: Bearer TOKEN`")
        scheme, _, secret = str(header).partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise TokenInvalid("the authorization metadata is not of the form `Bearer TOKEN`")
        return self._verifier.verify(secret.strip())


class ServiceInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler; see the module's text."""

    def __init__(self, authorizer: Authorizer, *, max_request_bytes: int, calls: CallMetrics | None = None) -> None:
        """`calls`: where the calls are counted."""
        self._authorizer = authorizer
        self._max_request_bytes = max_request_bytes
        self._calls = calls or CallMetrics()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None  # grpc answers UNIMPLEMENTED
        metrics = self._calls.of(handler_call_details.method, _kind(handler))
        call = _Call(self._authorizer, self._max_request_bytes, handler_call_details, metrics)
        return call.wrap(handler)


class _Call:
    """One call on its way through."""

    def __init__(
        self,
        authorizer: Authorizer,
        max_request_bytes: int,
        details: grpc.HandlerCallDetails,
        metrics: MethodMetrics,
    ) -> None:
        self._authorizer = authorizer
        self._max_request_bytes = max_request_bytes
        self._method = details.method
        self._metadata = dict(details.invocation_metadata or ())
        self._request_id = request_id_of(self._metadata)
        self._metrics = metrics
        self._trace: Trace | None = None
        self._start_ns = time.perf_counter_ns()

    def wrap(self, handler: Handler) -> Handler:
        """The same handler with everything around it."""
        # grpc hands the bytes on: they are parsed here, behind authorisation and the size limit, with an error of ours.
        self._deserialize = handler.request_deserializer
        codecs = {"request_deserializer": None, "response_serializer": handler.response_serializer}
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._answering_one(handler.unary_unary), **codecs)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(self._answering_one(handler.stream_unary), **codecs)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._answering_many(handler.unary_stream), **codecs)
        return grpc.stream_stream_rpc_method_handler(self._answering_many(handler.stream_stream), **codecs)

    def _answering_one(self, behavior: Any) -> Any:
        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                response = await behavior(self._enter(request), context)
            except BaseException as error:  # noqa: BLE001 - translated or raised again
                await self._fail(error, context)
            self._end("OK")
            return response

        return answer

    def _answering_many(self, behavior: Any) -> Any:
        # grpc takes both styles: a generator of answers, or a coroutine that writes to the context (its own health
        # service does).
        return self._generating(behavior) if inspect.isasyncgenfunction(behavior) else self._answering_one(behavior)

    def _generating(self, behavior: Any) -> Any:
        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                async for response in behavior(self._enter(request), context):
                    yield response
            except BaseException as error:  # noqa: BLE001 - translated or raised again
                await self._fail(error, context)
            self._end("OK")

        return answer

    def _enter(self, request: Any) -> Any:
        """Sets the call's context and checks it, in the task that runs the handler."""
        self._metrics.begin()
        self._trace = begin(self._method, self._metadata)
        if self._trace is not None:
            enter(self._trace)
            self._trace.note(request_id=self._request_id)
        structlog.contextvars.bind_contextvars(request_id=self._request_id)
        _request_id.set(self._request_id)
        _caller.set(self._authorizer.authorize(self._method, self._metadata))
        return self._parse(request) if isinstance(request, bytes) else self._parse_stream(request)

    def _parse(self, payload: bytes) -> Any:
        if len(payload) > self._max_request_bytes:
            raise TooLarge(
                f"the message has {len(payload)} bytes, at most {self._max_request_bytes} are allowed",
                metadata={"limit_bytes": str(self._max_request_bytes)},
            )
        try:
            return self._deserialize(payload) if self._deserialize else payload
        except DecodeError as error:
            raise MalformedContent(f"the message is not a request of {self._method}") from error

    async def _parse_stream(self, payloads: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for payload in payloads:
            yield self._parse(payload)

    async def _fail(self, error: BaseException, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
        """Ends the call with the status of `error`."""
        if isinstance(error, grpc.aio.AbortError):
            self._end(_name_of(context.code()))
            raise error
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            self._end("CANCELLED")
            raise error
        if not isinstance(error, ModelyardError):
            log_unhandled(self._method, error)
        status = rpc_status.to_status(to_status(error, request_id=self._request_id))
        self._end(status.code.name, message=str(error) if isinstance(error, ModelyardError) else "")
        context.set_trailing_metadata(((REQUEST_ID_HEADER, self._request_id), *status.trailing_metadata))
        await context.abort(status.code, status.details)

    def _end(self, code: str, *, message: str = "") -> None:
        ns = time.perf_counter_ns() - self._start_ns
        self._metrics.end(code, ns)
        if self._trace is not None:
            self._trace.end(code)
        log_call(self._method, code, ns, _caller.get(), message=message)


def request_id_of(metadata: Mapping[str, str | bytes]) -> str:
    """The request id that the caller chose, if it is one; else a new one."""
    wanted = str(metadata.get(REQUEST_ID_HEADER, ""))
    return wanted if _REQUEST_ID.fullmatch(wanted) else uuid.uuid4().hex


def log_call(method: str, code: str, ns: int, caller: Caller, *, message: str = "", **more: str) -> None:
    """The one line of a call that has ended, on whatever transport it came."""
    if code == "OK" and method.startswith(_QUIET):
        return
    extra = {"message": message} if message else {}
    log.info("call", method=method, code=code, ms=round(ns / 1e6, 3), caller=caller.subject, **extra, **more)


def log_unhandled(method: str, error: BaseException, **more: str) -> None:
    """What a caller is not told of an error outside our tree."""
    log.error("unhandled error", method=method, exc_info=error, **more)


def _kind(handler: Handler) -> str:
    """As the ecosystem's metrics name it."""
    if handler.request_streaming:
        return "bidi_stream" if handler.response_streaming else "client_stream"
    return "server_stream" if handler.response_streaming else "unary"


def _name_of(code: grpc.StatusCode | int) -> str:
    """A status code's name, however grpc holds it."""
    if isinstance(code, grpc.StatusCode):
        return code.name
    return next((known.name for known in grpc.StatusCode if known.value[0] == code), "UNKNOWN")
