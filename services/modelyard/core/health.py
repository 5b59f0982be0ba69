"""The standard health service (grpc.health.v1: Check, Watch and List), with what it says set by name.

Of our own making, because in grpc's servicer a watcher that does not read holds up whoever sets a status: anybody may
watch without a token, and must not be able to stop a pod from changing what it serves.

The service: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from .errors import NotFound, ResourceExhausted
from .names import shorten

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

SERVICE_NAME = health.SERVICE_NAME
MOST_LISTED = 1000
"""More names than this are not listed; they can be asked for one by one."""


class _Servicer(health_pb2_grpc.HealthServicer):
    """Answers from `statuses`. A watcher holds nothing but what it was told last."""

    def __init__(self) -> None:
        self.statuses: dict[str, Any] = {"": NOT_SERVING}
        self.over = False
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Has the watchers look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: health_pb2.HealthCheckRequest, _context: Any) -> health_pb2.HealthCheckResponse:
        status = self.statuses.get(request.service)
        if status is None:
            raise NotFound(f"nothing called {shorten(request.service)!r} is served here")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, _context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        told = None
        while True:
            changed = self._changed
            status = self.statuses.get(request.service, SERVICE_UNKNOWN)
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
            elif self.over:
                return  # a server's graceful stop waits for every open stream
            else:
                await changed.wait()

    async def List(self, _request: Any, _context: Any) -> Any:  # its messages are missing from the type stubs
        if len(self.statuses) > MOST_LISTED:
            raise ResourceExhausted(f"more than {MOST_LISTED} names are served here, the most that are listed")
        return health_pb2.HealthListResponse(  # type: ignore[attr-defined]  # as above
            statuses={name: health_pb2.HealthCheckResponse(status=status) for name, status in self.statuses.items()}
        )


class Health:
    """What this process says of itself. The empty name stands for the whole process."""

    def __init__(self) -> None:
        self.servicer = _Servicer()
        self._drained = False

    async def set(self, name: str, *, serving: bool) -> None:
        """Says whether the service (or model) of this name can be called."""
        if not self._drained:
            self.servicer.statuses[name] = SERVING if serving else NOT_SERVING
            self.servicer.wake()

    async def forget(self, name: str) -> None:
        """There is nothing of this name any more."""
        if not self._drained:
            self.servicer.statuses.pop(name, None)
            self.servicer.wake()

    async def drain(self) -> None:
        """Says NOT_SERVING for everything, for ever: the process is going away."""
        self._drained = True
        self.servicer.statuses = dict.fromkeys(self.servicer.statuses, NOT_SERVING)
        self.servicer.wake()

    def end_watches(self) -> None:
        """Ends all open watches; their clients have heard of the drain."""
        self.servicer.over = True
        self.servicer.wake()
