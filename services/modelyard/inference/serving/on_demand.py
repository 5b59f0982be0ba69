"""Requests for models that were unloaded to save memory: they wait, in bounded number and time, until it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from modelyard.core.errors import DeadlineExceeded, ResourceExhausted, Unavailable

from .table import RETRY_LOADING_S, ServingTable


class OnDemand:
    """Has parked models loaded. Used in the event loop; `note` belongs behind every pass of the reconciler."""

    def __init__(self, table: ServingTable, demand: Callable[[str], None], *, wait_s: float, most_waiters: int) -> None:
        """`demand` has a model loaded; `wait_s`: the longest a request waits."""
        self._table = table
        self._demand = demand
        self._wait_s = wait_s
        self._most_waiters = most_waiters
        self._waiters = 0
        self._back: dict[str, asyncio.Event] = {}

    async def until_back(self, model: str, version: str, expires: float | None = None) -> None:
        """Returns when this name can be looked up in the table; what it finds there must be used without awaiting.

        For what is not parked that is at once. Raises Unavailable with the reason if the model cannot be loaded or
        takes too long, ResourceExhausted if too many wait already, DeadlineExceeded at `expires` (the event loop's
        time).
        """
        until = asyncio.get_running_loop().time() + self._wait_s
        while self._table.is_parked(model, version) or model in self._back:
            await self._load(model, min(until, expires or until), late=expires is not None and expires <= until)

    async def note(self) -> None:
        """Lets those go on whose model is back, or cannot be."""
        for model in list(self._back):
            entry = self._table.models.get(model)
            if entry is None or entry.parked or entry.failures or not entry.missing():
                self._back.pop(model).set()

    async def _load(self, model: str, until: float, *, late: bool) -> None:
        """Waits until there is news of this model."""
        if self._waiters >= self._most_waiters:
            raise ResourceExhausted(
                f"{self._waiters} requests wait for models to be loaded again, the most allowed",
                retry_after=RETRY_LOADING_S,
            )
        back = self._back.setdefault(model, asyncio.Event())
        self._demand(model)
        self._waiters += 1
        try:
            async with asyncio.timeout_at(until):
                await back.wait()
        except TimeoutError:
            if late:
                raise DeadlineExceeded("the time allowed was over before the model was loaded again") from None
            text = f"models/{model} is being loaded again, which takes long"
            raise Unavailable(text, retry_after=RETRY_LOADING_S) from None
        finally:
            self._waiters -= 1
        entry = self._table.models.get(model)
        if entry is not None and entry.parked and entry.no_room:
            raise Unavailable(f"models/{model} is not in memory: {entry.no_room}", retry_after=RETRY_LOADING_S)
