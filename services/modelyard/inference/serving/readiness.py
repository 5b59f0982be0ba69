"""What the pod says of itself: health by name (the pod, the service, each model) and the protocol's ServerReady."""

from __future__ import annotations

import asyncio

from modelyard.core.health import Health
from modelyard.oip.service import SERVICE_NAME

from .table import ServingTable


class Readiness(Health):
    """Health that follows the serving table.

    A model goes by its id. It serves while its `live` version is loaded, does not while that is loading, broken or
    unloaded by request, and is unknown if the registry wants nothing of it served.
    """

    def __init__(self, table: ServingTable) -> None:
        super().__init__()
        self._table = table
        self._settled = False
        self._said: dict[str, bool] = {}
        self.draining = False
        """Whether the pod is going away: calls are still answered, and nobody should send new ones."""
        self.drained = asyncio.Event()
        """Set as `draining` becomes true, for whoever waits for it."""

    @property
    def ready(self) -> bool:
        """Whether the pod should be sent requests.

        From the moment it has tried to load everything that it should serve. A version that is broken, or comes later,
        does not take the whole pod out of service: its own health says so.
        """
        return self._settled and not self.draining

    async def update(self, *, settled: bool) -> None:
        """Says what has changed. `settled`: whether everything that should be loaded has been tried."""
        self._settled = self._settled or settled
        await self._say("", serving=self._settled)
        await self._say(SERVICE_NAME, serving=self._settled)
        for model in self._table.models:
            await self._say(model, serving=self._table.ready(model))
        for gone in self._said.keys() - self._table.models.keys() - {"", SERVICE_NAME}:
            del self._said[gone]
            await self.forget(gone)

    async def drain(self) -> None:
        """Says NOT_SERVING for everything, for ever."""
        self.draining = True
        self.drained.set()
        await super().drain()

    async def _say(self, name: str, *, serving: bool) -> None:
        if self._said.get(name) is not serving:
            self._said[name] = serving
            await self.set(name, serving=serving)
