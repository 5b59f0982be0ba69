"""gRPC channels to other services, with what every call of ours needs: large messages, keepalive, token, trace.

An address is `host:port` or `unix:/path`. Inside a cluster, transport security is the mesh's or the door's matter; a
channel from outside takes `tls=True`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import grpc.aio

from .trace_context import outgoing

MAX_MESSAGE_BYTES = 256 * 1024 * 1024
"""What the transport lets through; each service sets its own, lower limit with a clear error."""

Metadata = Sequence[tuple[str, str]]

_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A server that comes back is found within a second, not after gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


def bearer(token: str) -> Metadata:
    """The metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),) if token else ()


class TokenFile:
    """A bearer token in a file, read again when the file changes, so that tokens rotate without a restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._modified = -1
        self._metadata: Metadata = ()

    def metadata(self) -> Metadata:
        """The metadata to send now."""
        modified = self._path.stat().st_mtime_ns
        if modified != self._modified:
            self._metadata = bearer(self._path.read_text().strip())
            self._modified = modified
        return self._metadata


def no_token() -> Metadata:
    """For callers without a token."""
    return ()


def fixed_token(token: str) -> Callable[[], Metadata]:
    """For callers that hold the token itself."""
    metadata = bearer(token)
    return lambda: metadata


def sync_channel(
    address: str,
    metadata: Callable[[], Metadata] = no_token,
    *,
    tls: bool = False,
    root_certificates: bytes | None = None,
) -> grpc.Channel:
    """A blocking channel. `metadata` is asked for the token at each call. Never create one before a fork."""
    if tls:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(root_certificates), options=_OPTIONS)
    else:
        channel = grpc.insecure_channel(address, options=_OPTIONS)
    return grpc.intercept_channel(channel, _SyncMetadata(metadata))


def aio_channel(
    address: str,
    metadata: Callable[[], Metadata] = no_token,
    *,
    tls: bool = False,
    root_certificates: bytes | None = None,
) -> grpc.aio.Channel:
    """An asyncio channel; otherwise as `sync_channel`."""
    interceptors = [
        _AioUnaryUnary(metadata), _AioUnaryStream(metadata), _AioStreamUnary(metadata), _AioStreamStream(metadata),
    ]  # fmt: skip
    if tls:
        credentials = grpc.ssl_channel_credentials(root_certificates)
        return grpc.aio.secure_channel(address, credentials, options=_OPTIONS, interceptors=interceptors)
    return grpc.aio.insecure_channel(address, options=_OPTIONS, interceptors=interceptors)


class _CallDetails(grpc.ClientCallDetails):
    """grpc's own class is abstract; this is one with other metadata."""

    def __init__(self, details: grpc.ClientCallDetails, extra: Metadata) -> None:
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = (*(details.metadata or ()), *extra, *outgoing())
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = details.compression


class _SyncMetadata(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds the metadata to every call."""

    def __init__(self, metadata: Callable[[], Metadata]) -> None:
        self._metadata = metadata

    def intercept_unary_unary(self, continuation, client_call_details, request):  # type: ignore[no-untyped-def]
        return continuation(_CallDetails(client_call_details, self._metadata()), request)

    def intercept_unary_stream(self, continuation, client_call_details, request):  # type: ignore[no-untyped-def]
        return continuation(_CallDetails(client_call_details, self._metadata()), request)

    def intercept_stream_unary(self, continuation, client_call_details, request_iterator):  # type: ignore[no-untyped-def]
        return continuation(_CallDetails(client_call_details, self._metadata()), request_iterator)

    def intercept_stream_stream(self, continuation, client_call_details, request_iterator):  # type: ignore[no-untyped-def]
        return continuation(_CallDetails(client_call_details, self._metadata()), request_iterator)


def _with_metadata(details: grpc.aio.ClientCallDetails, extra: Metadata) -> grpc.aio.ClientCallDetails:
    metadata = grpc.aio.Metadata(*(details.metadata or ()), *extra, *outgoing())
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


class _AioUnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, metadata: Callable[[], Metadata]) -> None:
        self._metadata = metadata

    async def intercept_unary_unary(self, continuation, client_call_details, request):  # type: ignore[no-untyped-def]
        return await continuation(_with_metadata(client_call_details, self._metadata()), request)


class _AioUnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, metadata: Callable[[], Metadata]) -> None:
        self._metadata = metadata

    async def intercept_unary_stream(self, continuation, client_call_details, request):  # type: ignore[no-untyped-def]
        return await continuation(_with_metadata(client_call_details, self._metadata()), request)


class _AioStreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, metadata: Callable[[], Metadata]) -> None:
        self._metadata = metadata

    async def intercept_stream_unary(self, continuation, client_call_details, request_iterator):  # type: ignore[no-untyped-def]
        return await continuation(_with_metadata(client_call_details, self._metadata()), request_iterator)


class _AioStreamStream(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, metadata: Callable[[], Metadata]) -> None:
        self._metadata = metadata

    async def intercept_stream_stream(self, continuation, client_call_details, request_iterator):  # type: ignore[no-untyped-def]
        return await continuation(_with_metadata(client_call_details, self._metadata()), request_iterator)
