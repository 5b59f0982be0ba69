"""What runs inside Envoy: the pod with its gRPC server, and the express lane.

pyvoy hosts it as an ASGI application, for its start and its end: Envoy takes calls only when the application has
started, and ends it when it has stopped taking any. The calls themselves come over the crossing.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeAlias

from modelyard.core import logs, serving, tracing
from modelyard.inference.application import build
from modelyard.inference.settings import InferenceSettings

from .crossing import Crossing
from .endings import METHOD
from .express import ExpressLane
from .handover import DRAIN, END_STREAMS, Handover

log = logs.get_logger()

Event: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]

_NOT_FOR_CHILDREN = ("LD_PRELOAD", "PYTHONHOME", "PYTHONPATH")
"""What made this interpreter start inside Envoy would break one that is started from here."""


async def application(scope: Event, receive: Receive, send: Send) -> None:
    """The interpreter's whole life; ASGI's lifespan protocol."""
    if scope["type"] != "lifespan":  # no route leads here
        raise RuntimeError(f"calls come over the crossing; got {scope['type']}")
    await receive()
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(_pod())
        except Exception as error:
            log.exception("the pod could not start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


@asynccontextmanager
async def _pod() -> AsyncIterator[None]:
    """A pod that serves, on both lanes."""
    handover = Handover.read()
    for name in _NOT_FOR_CHILDREN:
        os.environ.pop(name, None)
    sys.executable = handover.executable
    settings = InferenceSettings()  # type: ignore[call-arg]  # the environment fills it
    logs.configure(settings.log_format, settings.log_level, service="inference")
    with tracing.exporting("inference"):
        async with build(settings) as pod:
            running = await serving.start(pod, settings, listen=f"unix:{handover.grpc_socket}")
            with _controlled(handover.control, running):
                lane = ExpressLane(
                    pod.predictor,
                    running.authorizer,
                    pod.calls.of(METHOD),
                    max_request_bytes=settings.max_request_bytes,
                )
                crossing = Crossing()
                crossing.open(lane, settings.max_request_bytes)
                serving.keep_heap()
                yield
                crossing.close()
                await lane.give_up()
            running.end_streams()
            await running.end(0, asyncio.Event())


@contextmanager
def _controlled(control: int, running: serving.RunningServer) -> Iterator[None]:
    """Does what the process around Envoy says."""
    loop = asyncio.get_running_loop()
    draining: list[asyncio.Task[None]] = []

    def obey() -> None:
        words = os.read(control, 16)
        if not words:
            loop.remove_reader(control)
        if DRAIN in words:
            draining.append(asyncio.create_task(running.health.drain()))
        if END_STREAMS in words:
            running.end_streams()

    loop.add_reader(control, obey)
    try:
        yield
    finally:
        loop.remove_reader(control)
