"""A service behind real gRPC in another thread, for tests that block; can be stopped and come back."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc.aio

from modelyard.core import serving
from modelyard.core.serving import RunningServer, Service
from modelyard.core.settings import ServiceSettings

from .identity import Identity

T = TypeVar("T")


@functools.cache
def background_loop() -> asyncio.AbstractEventLoop:
    """The one event loop for all of them: grpc.aio has one poller per process, which outlives a loop that is closed."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="background servers", daemon=True).start()
    # Else the poller would end with the last server, with its socket still in the loop.
    loop.call_soon_threadsafe(grpc.aio.init_grpc_aio)
    return loop


class BackgroundServer:
    """Serves `service` at an address, with the real interceptor. `stop` and `start` as often as the test likes."""

    def __init__(self, service: Service, identity: Identity, listen: str) -> None:
        self._service = service
        self._settings = ServiceSettings(
            token_keys_file=identity.keys_file, listen=listen, drain_delay_s=0, shutdown_grace_s=0
        )
        self._running: RunningServer | None = None
        self.address = listen

    def start(self) -> None:
        """Serves, at the same address as before."""
        self._running = self.call(serving.start(self._service, self._settings))
        self.address = self._running.address

    def stop(self) -> None:
        """Ends the server at once; callers see UNAVAILABLE."""
        if self._running is not None:
            self.call(self._running.server.stop(0))
            self._running = None

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the server's loop and answers its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, background_loop()).result(timeout=30)


@contextmanager
def serve_in_background(service: Service, identity: Identity, listen: str) -> Iterator[BackgroundServer]:
    """A served service for the length of a `with`; `listen` should be a Unix socket if it is to come back."""
    server = BackgroundServer(service, identity, listen)
    server.start()
    try:
        yield server
    finally:
        server.stop()
