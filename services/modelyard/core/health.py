"""The standard health service (grpc.health.v1, Check and Watch), with ours set by name."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health, health_pb2
from grpc_health.v1._async import HealthServicer  # grpc's aio servicer has no public path of its own

ServingStatus = health_pb2.HealthCheckResponse.ServingStatus
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

SERVICE_NAME = health.SERVICE_NAME


class _Servicer(HealthServicer):
    """grpc's own, with watches that can be ended: a server's graceful stop waits for every open stream."""

    def __init__(self) -> None:
        super().__init__()
        self.over = asyncio.Event()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        watching = asyncio.ensure_future(super().Watch(request, context))
        ending = asyncio.ensure_future(self.over.wait())
        try:
            await asyncio.wait((watching, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (watching, ending):
                task.cancel()
            await asyncio.gather(watching, ending, return_exceptions=True)


class Health:
    """What this process says of itself. The empty name stands for the whole process."""

    def __init__(self) -> None:
        self.servicer = _Servicer()

    async def set(self, name: str, *, serving: bool) -> None:
        """Says whether the service (or model) of this name can be called."""
        await self.servicer.set(name, SERVING if serving else NOT_SERVING)

    async def drain(self) -> None:
        """Says NOT_SERVING for everything, for ever: the process is going away."""
        await self.servicer.enter_graceful_shutdown()

    def end_watches(self) -> None:
        """Ends all open watches; their clients have heard of the drain."""
        self.servicer.over.set()
