"""The direct lane: the pod's own HTTP/2 server in front of gRPC's, in one process and one event loop.

ModelInfer comes as bytes, as on the express lane, and is answered by the same code; every other call is relayed over a
Unix socket to the grpc.aio server.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from modelyard.core import serving
from modelyard.http2 import library
from modelyard.http2.listening import listen, real_address
from modelyard.inference.application import Pod, build
from modelyard.inference.settings import InferenceSettings

from .endings import METHOD
from .express import ExpressLane
from .http2_server import Http2Server
from .requirements import LaneUnavailable


def check_requirements() -> None:
    """Raises LaneUnavailable if the lane cannot run here; the text says what is missing."""
    try:
        library.check_requirements()
    except library.Unavailable as error:
        raise LaneUnavailable(str(error)) from error


def run(settings: InferenceSettings) -> None:
    """Serves until a signal ends it."""
    prefix = "pod-" if settings.run_dir else "modelyard-pod-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=settings.run_dir) as folder:
        serving.run("inference", settings, lambda: build(settings), _starter(Path(folder)))


Starter: TypeAlias = Callable[[Pod, InferenceSettings], Awaitable[serving.RunningServer]]


def _starter(folder: Path) -> Starter:
    async def start(pod: Pod, settings: InferenceSettings) -> RunningPod:
        grpc_socket = folder / "grpc.sock"
        listeners = listen(settings.listen)  # first: it is what may fail
        behind = await serving.start(pod, settings, listen=f"unix:{grpc_socket}")
        metrics = pod.calls.of(METHOD)
        lane = ExpressLane(pod.predictor, behind.authorizer, metrics, max_request_bytes=settings.max_request_bytes)
        front = Http2Server()
        front.open(
            lane, listeners, METHOD, str(grpc_socket),
            max_message_bytes=settings.max_request_bytes, max_connections=settings.max_connections,
        )  # fmt: skip
        address = real_address(settings.listen, listeners)
        return RunningPod(
            behind.server, address, behind.health, behind.stopping, behind.drain_delay_s, behind.shutdown_grace_s,
            behind.authorizer, behind.metrics, {"lane": "direct"}, lane=lane, front=front,
        )  # fmt: skip

    return start


@dataclass(kw_only=True)
class RunningPod(serving.RunningServer):
    """A started pod: gRPC's server with ours in front of it."""

    lane: ExpressLane
    front: Http2Server

    async def end(self, grace_s: float, hurry: asyncio.Event) -> None:
        """See `RunningServer`."""
        await self.front.drain(grace_s, hurry)
        await self.lane.give_up()
        self.front.close()
        if self.address.startswith("unix:"):
            await asyncio.to_thread(Path(self.address.removeprefix("unix:")).unlink, missing_ok=True)
        await super().end(0, hurry)
