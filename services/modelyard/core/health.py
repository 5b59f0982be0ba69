"""The standard health service (grpc.health.v1: Check, Watch and List), with what it says set by name.

Of our own making, because in grpc's servicer a watcher that does not read holds up whoever sets a status: anybody may
watch without a token, and must not be able to stop a pod from changing what it serves.

The service: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Protocol

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from .errors import NotFound, ResourceExhausted, Unavailable
from .names import shorten

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

SERVICE_NAME = health.SERVICE_NAME
MOST_LISTED = 1000
"""More names than this are not listed; they can be asked for one by one."""


class Elsewhere(Protocol):
    """Others who are asked for the names that a process knows nothing of."""

    async def ask(self, name: str) -> int | None:
        """The status, None if nobody knows the name. Raises Unavailable if nobody can be asked."""

    def told(self, name: str) -> int | None:
        """The status as they said it last."""

    def followed(self) -> AbstractContextManager[None]:
        """While it is entered, they are asked again and again, and `Health.wake` is called when something changes."""


class Nowhere:
    """Nobody else is asked."""

    async def ask(self, _name: str) -> int | None:
        """Never knows."""
        return None

    def told(self, _name: str) -> int | None:
        """Never knows."""
        return None

    def followed(self) -> AbstractContextManager[None]:
        """There is nothing to follow."""
        return nullcontext()


class _Servicer(health_pb2_grpc.HealthServicer):
    """Answers from `statuses`. A watcher holds nothing but what it was told last."""

    def __init__(self) -> None:
        self.statuses: dict[str, Any] = {"": NOT_SERVING}
        self.elsewhere: Elsewhere = Nowhere()
        self.over = False
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Has the watchers look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: health_pb2.HealthCheckRequest, _context: Any) -> health_pb2.HealthCheckResponse:
        status = self.statuses.get(request.service)
        if status is None:
            status = await self.elsewhere.ask(request.service)
        if status is None:
            raise NotFound(f"nothing called {shorten(request.service)!r} is served here")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, _context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        name = request.service
        if name in self.statuses:
            followed: AbstractContextManager[None] = nullcontext()
        else:
            followed = self.elsewhere.followed()
            with suppress(Unavailable):  # then nobody can say, and the stream goes on until somebody can
                await self.elsewhere.ask(name)
        with followed:
            told = None
            while True:
                changed = self._changed
                status = self._status(name)
                if status != told:
                    told = status
                    yield health_pb2.HealthCheckResponse(status=status)
                elif self.over:
                    return  # a server's graceful stop waits for every open stream
                else:
                    await changed.wait()

    def _status(self, name: str) -> Any:
        status = self.statuses.get(name)
        if status is None:
            status = self.elsewhere.told(name)
        return SERVICE_UNKNOWN if status is None else status

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

    def refer_to(self, elsewhere: Elsewhere) -> None:
        """Has others asked for the names of which nothing is said here. What they say is not listed."""
        self.servicer.elsewhere = elsewhere

    def wake(self) -> None:
        """Has the watchers look again: what is said elsewhere has changed."""
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
