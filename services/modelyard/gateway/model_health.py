"""What the gateway says of the models: their health under their ids, as the inference pods tell it.

A health probe comes without a token and names what it likes, so the pods are not asked by name: each tells all of its
names at once, at most twice a second however many callers ask, and not at all while none does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard.core.channels import aio_channel
from modelyard.core.errors import Unavailable
from modelyard.core.health import NOT_SERVING, SERVING
from modelyard.core.logs import get_logger
from modelyard.core.names import ID

_FRESH_S = 0.5
"""What a pod said is good for so long."""
_PATIENCE_S = 1.0
"""So long an answer is waited for."""
_SLOW_S = 3.0
"""A pod that is late with its answers keeps what it said for so long: on a busy machine, late is not away."""

log = get_logger()


class ModelHealth:
    """Asks the pods; one that serves the model is enough. It is a `modelyard.core.health.Elsewhere`."""

    def __init__(self, addresses: Iterable[str], on_change: Callable[[], None]) -> None:
        """`on_change` is called when a pod says something new."""
        self._addresses = tuple(addresses)
        self._on_change = on_change
        self._pods: list[_Pod] = []
        self._followers = 0
        self._followed = asyncio.Event()

    async def run(self) -> None:
        """Holds the connections, and asks while somebody follows, until it is cancelled."""
        async with AsyncExitStack() as stack:
            for address in self._addresses:
                channel = await stack.enter_async_context(aio_channel(address))
                self._pods.append(_Pod(address, health_pb2_grpc.HealthStub(channel), self._on_change))
            stack.callback(self._pods.clear)
            async with asyncio.TaskGroup() as group:
                for pod in self._pods:
                    group.create_task(self._follow(pod))

    async def ask(self, name: str) -> int | None:
        """The model's status, None if there is no such model; from the first pod that serves it, else from all.

        Raises Unavailable if it is in nobody's list and no pod answers.
        """
        if not self._pods or re.fullmatch(ID, name) is None:
            return None
        if any(pod.fresh and pod.serves(name) for pod in self._pods):
            return SERVING
        looks = {asyncio.create_task(pod.look()): pod for pod in self._pods}
        waiting = set(looks)
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if any(looks[look].serves(name) for look in done):
                    return SERVING
        finally:
            for look in waiting:
                look.cancel()  # what the pod is asked goes on: others may wait for it
        status = self.told(name)
        if status is None and not any(pod.answers for pod in self._pods):
            raise Unavailable(f"no inference pod says what it serves: {self._pods[0].silence}")
        return status

    def told(self, name: str) -> int | None:
        """The model's status as the pods that answer said it last. While none answers, nothing serves."""
        if re.fullmatch(ID, name) is None:
            return None
        answering = [pod for pod in self._pods if pod.answers]
        said = [status for pod in answering or self._pods if (status := pod.statuses.get(name)) is not None]
        if not said:
            return None
        return SERVING if answering and SERVING in said else NOT_SERVING

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While it is entered, the pods are asked again and again."""
        self._followers += 1
        self._followed.set()
        try:
            yield
        finally:
            self._followers -= 1
            if not self._followers:
                self._followed.clear()

    async def _follow(self, pod: _Pod) -> None:
        while True:
            await self._followed.wait()
            await pod.look()
            await asyncio.sleep(_FRESH_S)


class _Pod:
    """One pod and what it says of its models."""

    def __init__(self, address: str, stub: Any, on_change: Callable[[], None]) -> None:
        self.statuses: dict[str, int] = {}
        """By name, as it said last; kept while it is silent."""
        self.answers = False
        """Whether it answered when it was asked last, or not long before."""
        self.silence = ""
        """Why it did not."""
        self._address = address
        self._stub = stub
        self._on_change = on_change
        self._fresh_until = 0.0
        self._answered_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    @property
    def fresh(self) -> bool:
        """Whether it was asked just now."""
        return asyncio.get_running_loop().time() < self._fresh_until

    def serves(self, name: str) -> bool:
        """Whether it said so last, and answers."""
        return self.answers and self.statuses.get(name) == SERVING

    async def look(self) -> None:
        """Asks it, unless it was asked just now; many callers ask once."""
        if self._asking is None and not self.fresh:
            self._asking = asyncio.create_task(self._ask())
        if self._asking is not None:
            await asyncio.shield(self._asking)

    async def _ask(self) -> None:
        before = self.answers, self.statuses
        loop = asyncio.get_running_loop()
        try:
            answer = await self._stub.List(health_pb2.HealthListRequest(), timeout=_PATIENCE_S)  # type: ignore[attr-defined]  # set by itself
            self.statuses = {name: status.status for name, status in answer.statuses.items()}
            self.answers = True
            self._answered_at = loop.time()
        except grpc.aio.AioRpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            self.answers = self.answers and late and loop.time() - self._answered_at < _SLOW_S
            self.silence = f"{self._address}: {error.code().name} {error.details()}"
            log.debug("a pod does not say what it serves", address=self._address, code=error.code().name)
        finally:
            self._asking = None
            self._fresh_until = loop.time() + _FRESH_S
        if before != (self.answers, self.statuses):
            self._on_change()
