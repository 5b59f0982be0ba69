"""The life of a service: start, announce, serve, and stop in two stages.

Stage one on SIGTERM or SIGINT: health says NOT_SERVING, calls are still taken, so that whoever balances looks away.
Stage two: no new calls, running ones may end within the grace, then everything is closed. A second signal skips to the
end.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc.aio
import uvloop
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from . import logs
from .channels import MAX_MESSAGE_BYTES
from .exposition import MetricsEndpoint
from .health import SERVICE_NAME, Health
from .interceptors import Authorizer, ServiceInterceptor
from .metrics import CallMetrics, MetricsSource
from .settings import ServiceSettings
from .tokens import Caller, TokenVerifier
from .tracing import exporting

log = logs.get_logger()

SERVER_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # two programs on one port is a mistake, not a feature
    # Clients that ping every 10 s (the door does) are welcome; gRPC would end their connection otherwise.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # gRPC remembers with an entry of this table that a header made no sense, and holds that against every later call
    # that refers to the entry: one caller's nonsense would fail all others' that come by the same door. The door's
    # Envoy could refuse the table too, but then what gRPC answers to nonsense lacks an update of its size, which ends a
    # new connection.
    ("grpc.http2.hpack_table_size.decoder", 0),
]
"""Of every server of ours."""


@dataclass
class Service:
    """What a program serves. Build it in an async context (see `run`): what it opened is closed after the server."""

    register: Callable[[grpc.aio.Server], None]
    """Adds the servicers."""
    names: Iterable[str]
    """Full names of the gRPC services, for health and reflection."""
    health: Health = field(default_factory=Health)
    anonymous: Caller | None = None
    """Who a caller without a token is taken for; None refuses them."""
    descriptor_pool: DescriptorPool | None = None
    """Where reflection finds the descriptors; protobuf's default pool if None."""
    reflected: Iterable[str] | None = None
    """Names that reflection lists; default: `names`."""
    serve_health: bool = True
    """False if the program registers a health service of its own."""
    announce: bool = True
    """False if the program itself says in `health` when it can be called."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when stage two begins: streams without an end of their own (watches) end now, not after the grace."""
    calls: CallMetrics = field(default_factory=CallMetrics)
    """Where calls are counted. A transport beside gRPC's counts here too."""
    metrics: Mapping[str, MetricsSource] = field(default_factory=dict)
    """What else is told at `/metrics`, each source under a name for the log."""


@dataclass
class RunningServer:
    """A started server."""

    server: grpc.aio.Server
    address: str
    """Where it listens, with the real port."""
    health: Health
    stopping: asyncio.Event
    drain_delay_s: float
    shutdown_grace_s: float
    authorizer: Authorizer
    metrics: MetricsEndpoint | None = None
    """None if metrics are served nowhere."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What else the log says when it serves."""

    async def stop(self, hurry: asyncio.Event | None = None) -> None:
        """Both stages of a graceful stop; `hurry` ends the first early and the second at once."""
        hurry = hurry or asyncio.Event()
        await self.health.drain()
        await _until(hurry, self.drain_delay_s)
        self.end_streams()
        await self.end(0 if hurry.is_set() else self.shutdown_grace_s, hurry)

    def end_streams(self) -> None:
        """Ends the streams that have no end of their own; their clients have heard of the drain."""
        self.stopping.set()
        self.health.end_watches()

    async def end(self, grace_s: float, hurry: asyncio.Event) -> None:
        """Takes no new calls and returns when running ones have ended; after the grace, or when it is urgent, they are
        cancelled.
        """
        ending = asyncio.create_task(self.server.stop(grace_s))
        urgent = asyncio.create_task(hurry.wait())
        await asyncio.wait((ending, urgent), return_when=asyncio.FIRST_COMPLETED)
        urgent.cancel()
        await self.server.stop(0)  # of two graces the shorter one counts
        await ending
        if self.metrics is not None:
            await self.metrics.stop()


async def _until(event: asyncio.Event, limit_s: float) -> None:
    """Returns when the event is set, or after `limit_s`."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), limit_s)


async def start(
    service: Service, settings: ServiceSettings, listen: str = "", tls: tuple[Path, Path] | None = None
) -> RunningServer:
    """Starts serving and says so in health; raises OSError if the address is taken.

    `listen`: where, if not where the settings say. `tls`: files with certificate chain and private key.
    """
    authorizer = Authorizer(TokenVerifier.from_file(settings.token_keys_file), anonymous=service.anonymous)
    interceptor = ServiceInterceptor(authorizer, max_request_bytes=settings.max_request_bytes, calls=service.calls)
    server = grpc.aio.server(interceptors=[interceptor], options=SERVER_OPTIONS)
    service.register(server)
    if service.serve_health:
        health_pb2_grpc.add_HealthServicer_to_server(service.health.servicer, server)
    listed = [*(service.reflected or service.names), SERVICE_NAME, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(listed, server, pool=service.descriptor_pool)
    address = await _listen(server, listen or settings.listen, tls)
    metrics = _metrics_endpoint(service, settings)
    await server.start()
    for name in ("", *service.names) if service.announce else ():
        await service.health.set(name, serving=True)
    return RunningServer(
        server, address, service.health, service.stopping, settings.drain_delay_s, settings.shutdown_grace_s,
        authorizer, metrics,
    )  # fmt: skip


def _metrics_endpoint(service: Service, settings: ServiceSettings) -> MetricsEndpoint | None:
    if not settings.metrics_listen:
        return None
    endpoint = MetricsEndpoint(settings.metrics_listen, {"calls": service.calls, **service.metrics})
    log.info("metrics", address=endpoint.address)
    return endpoint


async def _listen(server: grpc.aio.Server, address: str, tls: tuple[Path, Path] | None) -> str:
    if address.startswith("unix:"):
        # What a killed predecessor left would be "address in use".
        Path(address.removeprefix("unix:")).unlink(missing_ok=True)  # noqa: ASYNC240 - one quick call before serving
    try:
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            chain, key = (path.read_bytes() for path in tls)
            port = server.add_secure_port(address, grpc.ssl_server_credentials([(key, chain)]))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


def keep_heap() -> None:
    """To be called when all is loaded. What is on the heap then stays for good: a collection that looks at all of it
    would hold up every call for a fifth of a second, to find nothing.
    """
    gc.collect()
    gc.freeze()


ServiceT = TypeVar("ServiceT", bound=Service)
SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def run(
    name: str, settings: SettingsT, build: Callable[[], AbstractAsyncContextManager[ServiceT]],
    start: Callable[[ServiceT, SettingsT], Awaitable[RunningServer]] = start,
) -> None:  # fmt: skip
    """Runs a service until a signal ends it.

    `build` is an async context manager that opens what the service needs. `start` has it served, see the function.
    """
    logs.configure(settings.log_format, settings.log_level, service=name)
    with exporting(name):
        uvloop.run(_run(settings, build, start))


async def _run(
    settings: SettingsT, build: Callable[[], AbstractAsyncContextManager[ServiceT]],
    start: Callable[[ServiceT, SettingsT], Awaitable[RunningServer]],
) -> None:  # fmt: skip
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(build())
        running = await start(service, settings)
        keep_heap()
        log.info("serving", address=running.address, **running.notes)
        await stop.wait()
        log.info("stopping", grace_s=settings.shutdown_grace_s)
        await running.stop(hurry)
    log.info("stopped")
