"""A gRPC server that answers every method with who it is; a program of its own, so that tests can kill it.

    python echo_upstream.py ADDRESS NAME JOURNAL

It notes each call that reaches it as a line `METHOD TAG` in the file JOURNAL, and one that hung and was cancelled as
`cancelled TAG`. The tag and how to behave come from the
call's metadata: `x-tag`; `x-behave: unavailable | unavailable-NAME | hang | slow | metadata | silent | breaks`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc

from modelyard.core.health import Health
from modelyard.core.serving import SERVER_OPTIONS

UNLIMITED = {"grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1}
STREAMS = ("WatchTrainingJob", "ReadBlob", "WatchModels", "Watch")
BOTH_WAYS = ("ModelStreamInfer", "ServerReflectionInfo", "WriteUpload")


class Echo(grpc.GenericRpcHandler):
    """Handles every method but those of the health service."""

    def __init__(self, name: str, journal: Path) -> None:
        self.name = name
        self.journal = journal
        self.metadata: dict[str, str] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        if method.startswith("/grpc.health."):
            return None
        metadata = {key: str(value) for key, value in handler_call_details.invocation_metadata or ()}
        with self.journal.open("a") as file:
            file.write(f"{method} {metadata.get('x-tag', '-')}\n")
        last = method.rpartition("/")[2]
        if last in STREAMS:
            return grpc.unary_stream_rpc_method_handler(self._stream(metadata))
        if last in BOTH_WAYS:
            return grpc.stream_stream_rpc_method_handler(self._both_ways)
        return grpc.unary_unary_rpc_method_handler(self._unary(metadata))

    def _unary(self, metadata: dict[str, str]) -> Any:
        async def answer(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            behave = metadata.get("x-behave")
            if behave == "unavailable" or behave == f"unavailable-{self.name}":
                await context.abort(grpc.StatusCode.UNAVAILABLE, f"{self.name} is loading")
            if behave == "hang":
                await self._hang(metadata.get("x-tag", "-"))
            if behave == "slow":
                await asyncio.sleep(2)
            if behave == "metadata":
                return "\n".join(f"{key}: {value}" for key, value in sorted(metadata.items())).encode()
            return b"%s %s" % (self.name.encode(), request)

        return answer

    async def _hang(self, tag: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            with self.journal.open("a") as file:
                file.write(f"cancelled {tag}\n")
            raise

    def _stream(self, metadata: dict[str, str]) -> Any:
        async def answer(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
            for number in range(int(metadata.get("x-count", "3"))):
                yield b"%s %d" % (self.name.encode(), number)
            if metadata.get("x-behave") == "silent":
                await asyncio.Event().wait()
            if metadata.get("x-behave") == "breaks":
                await context.abort(grpc.StatusCode.UNAVAILABLE, f"{self.name} is stopping")

        return answer

    async def _both_ways(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        async for request in requests:
            yield b"%s %s" % (self.name.encode(), request)


async def start(address: str, name: str, journal: Path) -> tuple[grpc.aio.Server, Health]:
    """A running server and what it says of itself."""
    if address.startswith("unix:"):
        Path(address.removeprefix("unix:")).unlink(missing_ok=True)  # noqa: ASYNC240 - before anything is served
    server = grpc.aio.server(options=[*(dict(SERVER_OPTIONS) | UNLIMITED).items()])
    server.add_generic_rpc_handlers((Echo(name, journal),))
    health = Health()
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    server.add_insecure_port(address)
    await server.start()
    await health.set("", serving=True)
    return server, health


async def main(address: str, name: str, journal: str) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    server, health = await start(address, name, Path(journal))
    print("ready", flush=True)
    await stopped.wait()
    # The two stages of modelyard.core.serving.
    await health.drain()
    await asyncio.sleep(0.5)
    await server.stop(5)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
