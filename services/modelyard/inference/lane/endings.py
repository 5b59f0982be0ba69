"""How calls end on the lanes of our own: counted, logged and told to the caller as gRPC's interceptor does it."""

from __future__ import annotations

import asyncio

from grpc import StatusCode

from modelyard.core.errors import ModelyardError, to_status
from modelyard.core.interceptors import REQUEST_ID_HEADER, log_call, log_unhandled, request_id_of
from modelyard.core.metrics import MethodMetrics
from modelyard.core.tokens import Caller as Identity
from modelyard.oip.service import method_path

from .arrivals import ArrivingCall
from .frames import error_headers
from .metadata import CallMetadata

METHOD = method_path("ModelInfer")


class Endings:
    """Ends calls of ModelInfer. `ns`: from a call's arrival to its end."""

    def __init__(self, metrics: MethodMetrics) -> None:
        self._metrics = metrics

    def count(self, code: str, ns: int, calls: int = 1) -> None:
        """Some have ended with this status code."""
        self._metrics.begin(calls)
        self._metrics.end(code, ns, calls)

    def left(self, identity: Identity, request_id: bytes | None, ns: int) -> None:
        """The caller of a call that need not be dropped waits no more."""
        fields = {} if request_id is None else {REQUEST_ID_HEADER.encode(): request_id}
        self.count("CANCELLED", ns)
        log_call(METHOD, "CANCELLED", ns, identity, request_id=request_id_of(CallMetadata(fields)))

    def answered(self, call: ArrivingCall, message: bytes, ns: int) -> None:
        """Answers with a message."""
        call.answer(message)
        self.count("OK", ns)

    def failed(self, call: ArrivingCall, error: BaseException, identity: Identity, ns: int) -> str:
        """Answers with nothing but the status of `error`: what has no body yet, the door may send to another pod.

        Drops a call that was cancelled: nobody waits for it. The status code's name.
        """
        if isinstance(error, asyncio.CancelledError):
            self.left(identity, call.request_id, ns)
            call.drop()
            return "CANCELLED"
        request_id = request_id_of(CallMetadata(call.fields))
        if not isinstance(error, ModelyardError):
            log_unhandled(METHOD, error, request_id=request_id)
        status = to_status(error, request_id=request_id)
        code = _NAMES[status.code]
        message = str(error) if isinstance(error, ModelyardError) else ""
        self.count(code, ns)
        log_call(METHOD, code, ns, identity, message=message, request_id=request_id)
        call.refuse(error_headers(status, request_id))
        return code


_NAMES = {code.value[0]: code.name for code in StatusCode}
