"""Stands between the conformance suite and a good server, and spoils one thing: what the suite has to notice."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc

from modelyard.core.channels import sync_channel

Context: TypeAlias = "grpc.ServicerContext[Any, Any]"


class Refusal(Exception):
    """A fault's own answer instead of the server's."""

    def __init__(self, code: grpc.StatusCode, text: str = "spoiled") -> None:
        super().__init__(text)
        self.code, self.text = code, text


class Fault:
    """Spoils nothing. Methods get and give bytes; each may raise Refusal."""

    def request(self, method: str, data: bytes) -> bytes:
        """What the server is sent instead of a unary request."""
        return data

    def response(self, method: str, request: bytes, data: bytes) -> bytes:
        """What the caller gets instead of a good answer."""
        return data

    def refusal(self, method: str, code: grpc.StatusCode, text: str) -> bytes:
        """What the caller gets instead of a refusal: raises it, or another, or answers."""
        raise Refusal(code, text)

    def stream(self, replies: Iterator[bytes]) -> Iterator[bytes]:
        """What the caller of a stream gets."""
        return replies


class FaultyProxy(grpc.GenericRpcHandler):
    """Passes every call on, through the fault of the moment."""

    def __init__(self, upstream: str) -> None:
        self.fault = Fault()
        self.address = ""
        self._channel = sync_channel(upstream)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        path = details.method
        metadata = [item for item in details.invocation_metadata or () if item[0] != "user-agent"]

        def unary(request: bytes, context: Context) -> bytes:
            try:
                return self._unary(path, request, metadata)
            except Refusal as refusal:
                context.abort(refusal.code, refusal.text)
                raise

        def stream(requests: Iterator[bytes], context: Context) -> Iterator[bytes]:
            call: Any = self._channel.stream_stream(path)
            try:
                yield from self.fault.stream(call(requests, metadata=metadata, timeout=30))
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
            except Refusal as refusal:
                context.abort(refusal.code, refusal.text)

        if path.endswith(("ModelStreamInfer", "ServerReflectionInfo")):
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    def _unary(self, path: str, request: bytes, metadata: Any) -> bytes:
        method = path.rpartition("/")[2]
        call: Any = self._channel.unary_unary(path)
        try:
            answer: bytes = call(self.fault.request(method, request), metadata=metadata, timeout=30)
        except grpc.RpcError as error:
            return self.fault.refusal(method, error.code(), error.details() or "")
        return self.fault.response(method, request, answer)

    def close(self) -> None:
        """Closes the channel to the server."""
        self._channel.close()


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """A running one on a free port."""
    handler = FaultyProxy(upstream)
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(8), handlers=[handler], options=options)
    handler.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield handler
    finally:
        server.stop(None).wait()
        handler.close()
