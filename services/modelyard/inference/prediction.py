"""One prediction, from request to answer, whatever transport brought it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from modelyard.core.errors import Unavailable
from modelyard.inference.execution.batches import Computed
from modelyard.inference.execution.feeds import Feeds
from modelyard.inference.observation.observing import NullObserver, PredictionObserver
from modelyard.inference.protocol.delivery import Delivery, deliver
from modelyard.inference.protocol.parameters import read_timeout
from modelyard.inference.protocol.requests import Inference, read_request, shared_bytes
from modelyard.inference.protocol.responses import prediction
from modelyard.inference.protocol.shared_memory import NO_REGIONS, SharedMemory, TenantRegions
from modelyard.inference.serving.on_demand import OnDemand
from modelyard.inference.serving.shadowing import Shadows
from modelyard.inference.serving.table import ServingTable
from modelyard.inference.serving.versions import LoadedVersion
from modelyard.oip import open_inference_pb2 as pb

from .calls import UNTOLD, PredictionCall

LARGE_REQUEST_BYTES = 256 * 1024
"""A request above this is read in a thread, unless it is plain: a million text elements take a second to take apart,
and nobody else's answer may wait for that."""
LARGE_OUTPUT_BYTES = 8 * 1024
"""Outputs above this are put into shared memory, or sorted into classes, in a thread: each class becomes a text."""


class Predictor:
    """Answers predictions from the serving table. Used from the event loop; every lane of the pod calls `predict`."""

    def __init__(
        self,
        table: ServingTable,
        observer: PredictionObserver | None = None,
        *,
        memory: SharedMemory | None = None,
        shadows: Shadows | None = None,
        on_demand: OnDemand | None = None,
    ) -> None:
        """`memory`: None if callers may not use shared memory. `shadows`: None if no shadow version is to answer.
        `on_demand`: None if no model is ever unloaded to save memory."""
        self._on_demand = on_demand
        self._shadows = shadows
        self._table = table
        self._observer: PredictionObserver = observer or NullObserver()
        self._memory = memory

    async def predict(self, request: pb.ModelInferRequest, call: PredictionCall = UNTOLD) -> pb.ModelInferResponse:
        """The answer.

        Cancelling it takes the request out of the queue, or lets the batch it is in go on without it. Raises NotFound,
        InvalidFields, Unavailable while the version is being loaded, ResourceExhausted when its queue is full,
        DeadlineExceeded.
        """
        arrival = time.perf_counter_ns()
        try:
            version = self._table.choose(request.model_name, request.model_version, call.metadata)
        except Unavailable:
            expires = _earlier(call.expires, read_timeout(request))
            await self.until_loaded(request.model_name, request.model_version, expires)
            version = self._table.choose(request.model_name, request.model_version, call.metadata)
        version.acquire()
        try:
            feeds = version.plain.read(request)
            if feeds is None:
                return await self._answer(request, version, call, arrival)
            computed = await version.batcher.compute(feeds, call.expires)
            response = version.plain.answer(request, computed)
            self._count(version, call, feeds.rows, computed, arrival)
            self._offer_to_shadow(request, response, version)
            return response
        except BaseException as error:
            total_ns = time.perf_counter_ns() - arrival
            version.statistics.failed(total_ns)
            self._observer.failed(version, call, error, total_ns)
            raise
        finally:
            version.release()

    async def until_loaded(self, model: str, version: str, expires: float | None = None) -> None:
        """Returns at once unless the model was unloaded to save memory: then when it is loaded again.

        Raises Unavailable if it cannot be, ResourceExhausted if too many wait, DeadlineExceeded at `expires`.
        """
        if self._on_demand is not None:
            await self._on_demand.until_back(model, version, expires)

    async def _answer(
        self, request: pb.ModelInferRequest, version: LoadedVersion, call: PredictionCall, arrival: int
    ) -> pb.ModelInferResponse:
        """The answer to a request that is not plain."""
        expires = _earlier(call.expires, read_timeout(request))
        regions = self._memory.of(call.caller.tenant) if self._memory is not None else NO_REGIONS
        large = request.ByteSize() + shared_bytes(request) > LARGE_REQUEST_BYTES
        inference = await _read(request, version, regions, in_thread=large)
        feeds = Feeds.of(inference.feeds, inference.outputs, inference.rows, version.signature)
        computed = await version.batcher.compute(feeds, expires, inference.priority)
        response = prediction(request, version, inference.outputs, computed.outputs)
        if inference.deliveries is not None:
            large = large or response.ByteSize() > LARGE_OUTPUT_BYTES
            await _deliver(response, inference.deliveries, in_thread=large)
        self._count(version, call, feeds.rows, computed, arrival)
        self._offer_to_shadow(request, response, version)
        return response

    def _offer_to_shadow(
        self, request: pb.ModelInferRequest, response: pb.ModelInferResponse, version: LoadedVersion
    ) -> None:
        if self._table.shadows and self._shadows is not None:
            self._shadows.offer(request, response, version)

    def _count(self, version: LoadedVersion, call: PredictionCall, rows: int, computed: Computed, arrival: int) -> None:
        """Counts an answer, and with the first of a run the run."""
        run = computed.run
        if not run.counted:
            run.counted = True
            version.statistics.executed(run)
            self._observer.executed(version, run)
        total_ns = time.perf_counter_ns() - arrival
        version.statistics.answered(total_ns, computed.queue_ns, run)
        self._observer.answered(version, call, rows, total_ns, computed.queue_ns, run)


async def _read(
    request: pb.ModelInferRequest, version: LoadedVersion, regions: TenantRegions, *, in_thread: bool
) -> Inference:
    if in_thread:
        return await asyncio.to_thread(read_request, request, version, regions)
    return read_request(request, version, regions)


async def _deliver(response: pb.ModelInferResponse, deliveries: Mapping[str, Delivery], *, in_thread: bool) -> None:
    if in_thread:
        await asyncio.to_thread(deliver, response, deliveries)
    else:
        deliver(response, deliveries)


def _earlier(expires: float | None, timeout: float | None) -> float | None:
    """When the caller gives up, by the event loop's clock: its deadline or its own `timeout` in seconds from now."""
    if timeout is None:
        return expires
    own = asyncio.get_running_loop().time() + timeout
    return own if expires is None else min(own, expires)
