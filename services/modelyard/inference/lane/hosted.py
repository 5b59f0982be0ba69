"""What runs inside Envoy: the pod with its gRPC server, and the express lane. An ASGI application, for pyvoy.

Envoy takes calls only when the application has started, and ends it when it has stopped taking any.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeAlias

from modelyard.core import logs, serving, tracing
from modelyard.inference.application import build
from modelyard.inference.settings import InferenceSettings

from .attendance import Receive
from .express import METHOD, ExpressLane, Scope, Send
from .handover import DRAIN, END_STREAMS, Handover

log = logs.get_logger()

Answer: TypeAlias = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

_NOT_FOR_CHILDREN = ("LD_PRELOAD", "PYTHONHOME", "PYTHONPATH")
"""What made this interpreter start inside Envoy would break one that is started from here."""


class Application:
    """The ASGI application."""

    _asgi_single_callable = True
    """ASGI 3, which cannot be seen from a method that hands on a coroutine."""

    def __init__(self) -> None:
        self._answer: Answer | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "lifespan":
            return self._live(receive, send)
        assert self._answer is not None  # noqa: S101 - Envoy listens after the start
        return self._answer(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """The interpreter's whole life; ASGI's lifespan protocol."""
        await receive()
        async with AsyncExitStack() as stack:
            try:
                self._answer = await stack.enter_async_context(_pod())
            except Exception as error:
                log.exception("the pod could not start")
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


@asynccontextmanager
async def _pod() -> AsyncIterator[Answer]:
    """A pod that serves; yields the express lane."""
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
                yield lane.answer
            running.end_streams()
            await running.end(0)


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


application = Application()
