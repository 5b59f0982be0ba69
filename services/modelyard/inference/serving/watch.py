"""The stream from the registry that says what to serve: followed for ever, resumed after every break.

While the registry is away the pod goes on serving what it serves; a pod that starts meanwhile serves what its copy of
the desired state names and its cache holds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from modelyard.core.errors import RemoteError
from modelyard.core.logs import get_logger
from modelyard.core.retries import Backoff
from modelyard.v1 import model_service_pb2 as pb

from .desired import DesiredState
from .reconcile import Reconciler
from .table import ServingTable

if TYPE_CHECKING:  # the class exists for type checkers only
    from modelyard.v1.model_service_pb2_grpc import ModelServiceAsyncStub

log = get_logger()


class RegistryWatch:
    """Feeds what the registry says to the reconciler. `run` it as a task."""

    def __init__(
        self,
        stub: ModelServiceAsyncStub,
        desired: DesiredState,
        table: ServingTable,
        reconciler: Reconciler,
        *,
        pod: str,
        silence_s: float,
    ) -> None:
        self._stub = stub
        self._desired = desired
        self._table = table
        self._reconciler = reconciler
        self._pod = pod
        self._silence_s = silence_s
        self._backoff = Backoff(first_s=0.1, limit_s=5.0)
        self._connected = False

    @property
    def connected(self) -> bool:
        """Whether the registry is heard."""
        return self._connected

    @property
    def revision(self) -> int:
        """The registry's revision that was heard of last."""
        return self._desired.revision

    async def run(self) -> None:
        """Follows for ever."""
        while True:
            error = await self._follow_once()
            if self._connected:
                log.warning("the registry is away; what is loaded goes on being served", error=str(error))
            self._connected = False
            await asyncio.sleep(self._backoff.next_s(error))

    async def _follow_once(self) -> RemoteError:
        """One stream; answers how it ended."""
        # A pod that has just started asks for everything: its copy may be of a registry that has been replaced since.
        after = self._desired.revision if self._table.confirmed else 0
        call = self._stub.WatchModels(pb.WatchModelsRequest(after_revision=after, pod=self._pod))
        messages = aiter(call)
        try:
            while True:
                async with asyncio.timeout(self._silence_s):
                    message = await anext(messages, None)
                if message is None:
                    return RemoteError(grpc.StatusCode.UNAVAILABLE, "the registry ended the stream")
                await self._take(message)
        except grpc.RpcError as error:
            return RemoteError.from_rpc(error)
        except TimeoutError:
            return RemoteError(grpc.StatusCode.UNAVAILABLE, f"the registry said nothing for {self._silence_s:g} s")
        finally:
            call.cancel()  # without effect on a stream that has ended

    async def _take(self, message: pb.WatchModelsResponse) -> None:
        if not self._connected:
            log.info("following the registry", revision=message.revision, models=len(message.models))
        self._connected = True
        self._backoff.reset()
        if not message.models and not message.snapshot:
            self._desired.revision = message.revision
            return  # a sign of life
        changed = self._desired.apply(message)
        self._table.confirmed = True
        self._reconciler.want(self._desired.models, changed)
        try:
            await asyncio.to_thread(self._desired.save)
        except OSError as error:
            # The pod can do without; it must not stop serving because of it.
            log.warning("the copy of the desired state cannot be written", error=str(error))
