"""What the gateway says of the services behind the door beside its own: their health, watched, under their names.

So a client asks one address for the health of every public service. The empty name stays the gateway's own, since the
door decides by it whether to send calls here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from itertools import chain

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard.core.channels import aio_channel
from modelyard.core.health import SERVING, Health
from modelyard.core.logs import get_logger

_RETRY_S = 0.5
_PAUSE_S = 0.05
_STREAM_S = 10.0
"""A service that hangs ends no stream and says nothing in the next: it is known to be away after twice as long."""

log = get_logger()


class Upstreams:
    """Follows the health of other services' addresses; one that serves is enough for the service."""

    def __init__(self, health: Health, addresses: Mapping[str, Iterable[str]]) -> None:
        """`addresses`: for each gRPC service's full name, where it is served."""
        self._health = health
        self._addresses = {name: tuple(served_at) for name, served_at in addresses.items()}
        self._serving: dict[str, bool] = dict.fromkeys(chain.from_iterable(self._addresses.values()), False)

    async def run(self) -> None:
        """Follows until it is cancelled."""
        await self._tell()
        async with asyncio.TaskGroup() as group:
            for address in self._serving:
                group.create_task(self._follow(address))

    async def _follow(self, address: str) -> None:
        async with aio_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                # A stream may end for reasons of its own: the service is away only if the next one says nothing.
                if not await self._listen(stub, address):
                    await self._note(address, serving=False)
                    await asyncio.sleep(_RETRY_S)
                await asyncio.sleep(_PAUSE_S)

    async def _listen(self, stub: health_pb2_grpc.HealthStub, address: str) -> bool:
        """Follows one stream to its end; whether it has said anything."""
        heard = False
        try:
            watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=_STREAM_S)  # type: ignore[attr-defined]  # set by itself
            async for answer in watch:
                heard = True
                await self._note(address, serving=answer.status == SERVING)
        except grpc.aio.AioRpcError as error:
            log.debug("health stream ended", address=address, code=error.code().name)
        return heard

    async def _note(self, address: str, *, serving: bool) -> None:
        if self._serving[address] is not serving:
            self._serving[address] = serving
            log.info("health changed", address=address, serving=serving)
            await self._tell()

    async def _tell(self) -> None:
        for name, addresses in self._addresses.items():
            await self._health.set(name, serving=any(self._serving[address] for address in addresses))
