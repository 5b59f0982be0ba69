"""One prediction, from request to answer, whatever transport brought it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from modelyard.core.errors import Unavailable
from modelyard.inference.execution.batches import Computed
from modelyard.inference.execution.batching import Batcher
from modelyard.inference.execution.feeds import Feeds
from modelyard.inference.observation.observing import NullObserver, PredictionObserver
from modelyard.inference.protocol.delivery import Delivery, deliver
from modelyard.inference.protocol.parameters import read_timeout
from modelyard.inference.protocol.plain import PlainMessage
from modelyard.inference.protocol.requests import Inference, read_request, shared_bytes
from modelyard.inference.protocol.responses import prediction
from modelyard.inference.protocol.shared_memory import NO_REGIONS, SharedMemory, TenantRegions
from modelyard.inference.serving.on_demand import OnDemand
from modelyard.inference.serving.shadowing import Shadows
from modelyard.inference.serving.table import ServingTable
from modelyard.inference.serving.versions import LoadedVersion
from modelyard.oip import open_inference_pb2 as pb

from .calls import UNTOLD, PredictionCall
from .plain_prediction import JointListener, JointPrediction, Listener, PlainPrediction

_FORMS_KEPT = 4096
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
        self._begun: set[Batcher] = set()
        self._named: dict[bytes, tuple[str, str]] = {}
        """Model and version that the messages of a form ask for."""

    def begin(self, plain: PlainMessage, call: PredictionCall, listener: Listener) -> PlainPrediction | None:
        """Begins to answer a message whose form `predict` has seen, for a call of which metadata say nothing.

        Costs a fraction of what `predict` does. None: let `predict` answer it, which also knows what is wrong with it.
        """
        version = self._version_of(plain)
        feeds = version.plain.read_message(plain) if version is not None else None
        if version is None or feeds is None:
            return None
        prediction = PlainPrediction(version, plain, call, feeds, self, listener)
        prediction.begin()
        self._begun.add(version.batcher)
        return prediction

    def begin_together(
        self, plain: PlainMessage, calls: int, raw: bytes, call: PredictionCall, listener: JointListener
    ) -> JointPrediction | None:
        """The same for several calls with messages of one form, without ids, that came together.

        `plain`: the first message. `raw`: the contents of the one input, of all calls in their order. None: let each of
        them be answered by itself.
        """
        version = self._version_of(plain)
        feeds = version.plain.read_message(plain) if version is not None else None
        if version is None or feeds is None or feeds.rows * calls > version.batcher.plan.batch_rows:
            return None
        feeds = feeds._replace(rows=feeds.rows * calls, raws=[raw])
        prediction = JointPrediction(version, calls, call, feeds, self, listener)
        if not prediction.begin():
            return None
        self._begun.add(version.batcher)
        return prediction

    def _version_of(self, plain: PlainMessage) -> LoadedVersion | None:
        """The version that a message of a known form asks for, if nothing but the name decides which."""
        named = self._named.get(plain.form)
        return None if named is None else self._table.only(*named)

    def serve_begun(self) -> None:
        """Has the queues served of what has begun. To be called when all that came in one turn of the event loop has:
        nothing of it waits for the next."""
        begun, self._begun = self._begun, set()
        for batcher in begun:
            batcher.serve()

    async def predict(
        self, request: pb.ModelInferRequest, call: PredictionCall = UNTOLD, plain: PlainMessage | None = None
    ) -> pb.ModelInferResponse:
        """The answer. `plain`: the message that the request was read from, if it looks like one for `begin`.

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
            if plain is not None:
                self._learn(plain, request, version, feeds)
            computed = await version.batcher.compute(feeds, call.expires)
            response = version.plain.answer(request, computed)
            self.count(version, call, feeds.rows, computed, arrival)
            self._offer_to_shadow(request, response, version)
            return response
        except BaseException as error:
            self.count_failure(version, call, error, arrival)
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
        self.count(version, call, feeds.rows, computed, arrival)
        self._offer_to_shadow(request, response, version)
        return response

    def _offer_to_shadow(
        self, request: pb.ModelInferRequest, response: pb.ModelInferResponse, version: LoadedVersion
    ) -> None:
        if self._table.shadows and self._shadows is not None:
            self._shadows.offer(request, response, version)

    def _learn(self, plain: PlainMessage, request: pb.ModelInferRequest, version: LoadedVersion, feeds: Feeds) -> None:
        if len(self._named) >= _FORMS_KEPT:
            self._named.clear()
        self._named[plain.form] = request.model_name, request.model_version
        version.plain.learn(plain, feeds)

    def count(
        self, version: LoadedVersion, call: PredictionCall, rows: int, computed: Computed, arrival: int, calls: int = 1
    ) -> None:
        """Counts an answer, or several that are equal in all this, and with the first of a run the run.

        `arrival`: by `time.perf_counter_ns`.
        """
        run = computed.run
        if not run.counted:
            run.counted = True
            version.statistics.executed(run)
            self._observer.executed(version, run)
        total_ns = time.perf_counter_ns() - arrival
        version.statistics.answered(total_ns, computed.queue_ns, run, calls)
        self._observer.answered(version, call, rows, total_ns, computed.queue_ns, run, calls)

    def count_failure(self, version: LoadedVersion, call: PredictionCall, error: BaseException, arrival: int) -> None:
        """Counts a prediction that had reached a version and failed or was given up."""
        total_ns = time.perf_counter_ns() - arrival
        version.statistics.failed(total_ns)
        self._observer.failed(version, call, error, total_ns)


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
