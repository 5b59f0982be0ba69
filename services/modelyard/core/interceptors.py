"""The one interceptor of every service: request id, size, authorisation, error translation, one log line per call.

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
from .permissions import METHOD_TABLE, Access, Permission
from .tokens import Caller, TokenVerifier

REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_QUIET = ("/grpc.health.v1.Health/", "/grpc.reflection.")

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

    def __init__(self, authorizer: Authorizer, *, max_request_bytes: int) -> None:
        self._authorizer = authorizer
        self._max_request_bytes = max_request_bytes

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None  # grpc answers UNIMPLEMENTED
        call = _Call(self._authorizer, self._max_request_bytes, handler_call_details)
        return call.wrap(handler)


class _Call:
    """One call on its way through."""

    def __init__(self, authorizer: Authorizer, max_request_bytes: int, details: grpc.HandlerCallDetails) -> None:
        self._authorizer = authorizer
        self._max_request_bytes = max_request_bytes
        self._method = details.method
        self._metadata = dict(details.invocation_metadata or ())
        wanted = str(self._metadata.get(REQUEST_ID_HEADER, ""))
        self._request_id = wanted if _REQUEST_ID.fullmatch(wanted) else uuid.uuid4().hex
        self._start = time.perf_counter()

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
            self._log("OK")
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
            self._log("OK")

        return answer

    def _enter(self, request: Any) -> Any:
        """Sets the call's context and checks it, in the task that runs the handler."""
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
        if isinstance(error, (grpc.aio.AbortError, GeneratorExit)):
            raise error
        if isinstance(error, asyncio.CancelledError):
            self._log("CANCELLED")
            raise error
        if not isinstance(error, ModelyardError):
            log.error("unhandled error", method=self._method, exc_info=error)
        status = rpc_status.to_status(to_status(error, request_id=self._request_id))
        self._log(status.code.name, message=str(error) if isinstance(error, ModelyardError) else "")
        context.set_trailing_metadata(((REQUEST_ID_HEADER, self._request_id), *status.trailing_metadata))
        await context.abort(status.code, status.details)

    def _log(self, code: str, *, message: str = "") -> None:
        if self._method.startswith(_QUIET) and code == "OK":
            return
        milliseconds = round((time.perf_counter() - self._start) * 1e3, 3)
        extra = {"message": message} if message else {}
        log.info("call", method=self._method, code=code, ms=milliseconds, caller=_caller.get().subject, **extra)
