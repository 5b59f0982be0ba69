"""Gives requests to a shadow version after their callers have been answered, and keeps how the answers compare.

Callers come first: one request at a time is computed in the shadow, at the lowest priority, and only while nobody
waits for either version. What cannot be computed soon waits in a bounded buffer; what does not fit is dropped and
counted.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from modelyard.core.errors import ModelyardError
from modelyard.core.logs import get_logger
from modelyard.inference.execution.batches import PRIORITY_LEVELS
from modelyard.inference.execution.feeds import Feeds
from modelyard.inference.protocol.delivery import Delivery, deliver
from modelyard.inference.protocol.requests import read_request, shared_bytes
from modelyard.inference.protocol.responses import prediction
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.tensors import output_arrays
from modelyard.v1 import model_pb2

from .comparison import Comparison, compare
from .table import ServingTable, ShadowRoute
from .versions import LoadedVersion

BUFFER_REQUESTS = 64
BUFFER_BYTES = 64 * 1024 * 1024
TIMEOUT_S = 30.0
"""After so long a shadow version is taken to have failed."""
_ERROR_LENGTH = 500

log = get_logger()


@dataclass(frozen=True, slots=True)
class ShadowPair:
    """An alias, the version that answered for it, and the one in its shadow."""

    model: str
    alias: str
    version: int
    shadow_version: int


@dataclass(slots=True)
class ShadowCounts:
    """What came of a pair's requests since the pod started; see modelyard.v1.ShadowReport."""

    compared: int = 0
    differing: int = 0
    rows: int = 0
    class_mismatches: int = 0
    max_absolute_difference: float = 0.0
    max_relative_difference: float = 0.0
    failed: int = 0
    dropped: int = 0
    last_error: str = ""

    def add(self, comparison: Comparison) -> None:
        """One more request that both answered."""
        self.compared += 1
        self.differing += comparison.differs
        self.rows += comparison.rows
        self.class_mismatches += comparison.class_mismatches
        self.max_absolute_difference = max(self.max_absolute_difference, comparison.max_absolute_difference)
        self.max_relative_difference = max(self.max_relative_difference, comparison.max_relative_difference)


@dataclass(slots=True, eq=False)
class _Offer:
    """A request that was answered, on its way into the shadow."""

    route: ShadowRoute
    counts: ShadowCounts
    request: pb.ModelInferRequest
    response: pb.ModelInferResponse
    answered: LoadedVersion
    size: int


class Shadows:
    """The shadows of all aliases of the pod. Used from the event loop."""

    def __init__(self, table: ServingTable, *, chance: Callable[[], float] = random.random) -> None:
        """`chance` gives numbers from 0 up to 1, for shadows that get a share of the requests."""
        self._table = table
        self._chance = chance
        self._waiting: deque[_Offer] = deque()
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None
        self.counts: dict[ShadowPair, ShadowCounts] = {}
        """What was counted, for metrics and for the registry."""

    def offer(self, request: pb.ModelInferRequest, response: pb.ModelInferResponse, answered: LoadedVersion) -> None:
        """A caller has been answered. Returns at once.

        Passed over: requests of aliases without a shadow, those that the shadow's own share leaves out, and those
        with tensors in shared memory, which the caller may have changed since.
        """
        route = self._table.shadows.get((request.model_name, request.model_version))
        if route is None or route.version is answered or self._chance() * 100 >= route.percent:
            return
        if shared_bytes(request):
            return
        pair = ShadowPair(request.model_name, route.alias, answered.wanted.number, route.version.wanted.number)
        counts = self.counts.setdefault(pair, ShadowCounts())
        offer = _Offer(route, counts, request, response, answered, request.ByteSize() + response.ByteSize())
        if len(self._waiting) >= BUFFER_REQUESTS or self._bytes + offer.size > BUFFER_BYTES:
            counts.dropped += 1
        else:
            self._waiting.append(offer)
            self._bytes += offer.size
        self._start()

    def reports(self) -> list[model_pb2.ShadowReport]:
        """What was counted, for the registry."""
        return [
            model_pb2.ShadowReport(
                name=f"models/{pair.model}/aliases/{pair.alias}", version=pair.version,
                shadow_version=pair.shadow_version,
                compared=counts.compared, differing=counts.differing, rows=counts.rows,
                class_mismatches=counts.class_mismatches,
                max_absolute_difference=counts.max_absolute_difference,
                max_relative_difference=counts.max_relative_difference,
                failed=counts.failed, dropped=counts.dropped, last_error=counts.last_error,
            )
            for pair, counts in self.counts.items()
        ]  # fmt: skip

    async def close(self) -> None:
        """Lets go of what waits. Before the versions are freed."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _start(self) -> None:
        if self._task is None and self._waiting and _nobody_waits(self._waiting[0]):
            self._task = asyncio.create_task(self._work(), name="shadows")

    async def _work(self) -> None:
        """Computes what waits, one by one, until callers do; the next answered one starts it again."""
        try:
            while self._waiting and _nobody_waits(self._waiting[0]):
                offer = self._waiting.popleft()
                self._bytes -= offer.size
                await self._compute(offer)
        finally:
            self._task = None

    async def _compute(self, offer: _Offer) -> None:
        version = offer.route.version
        route = self._table.shadows.get((offer.request.model_name, offer.request.model_version))
        if route is None or route.version is not version:
            offer.counts.dropped += 1  # the shadow has gone meanwhile, or is being freed
            return
        version.acquire()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                comparison = await _compare(offer.request, offer.response, version)
        except Exception as error:  # noqa: BLE001 - whatever the shadow does, callers must not notice
            _note_failure(offer, error)
        else:
            offer.counts.add(comparison)
        finally:
            version.release()


def _nobody_waits(offer: _Offer) -> bool:
    return not offer.answered.waiting and not offer.route.version.waiting


async def _compare(
    request: pb.ModelInferRequest, response: pb.ModelInferResponse, version: LoadedVersion
) -> Comparison:
    inference = await asyncio.to_thread(read_request, request, version)
    feeds = Feeds.of(inference.feeds, inference.outputs, inference.rows, version.signature)
    computed = await version.batcher.compute(feeds, priority=PRIORITY_LEVELS)
    shadow = prediction(request, version, inference.outputs, computed.outputs)
    return await asyncio.to_thread(_compare_answers, response, shadow, inference.deliveries or {})


def _compare_answers(
    response: pb.ModelInferResponse, shadow: pb.ModelInferResponse, deliveries: Mapping[str, Delivery]
) -> Comparison:
    deliver(shadow, deliveries)
    return compare(output_arrays(response), output_arrays(shadow))


def _note_failure(offer: _Offer, error: Exception) -> None:
    counts = offer.counts
    counts.failed += 1
    timed_out = f"no answer within {TIMEOUT_S:g} s" if isinstance(error, TimeoutError) else "an error inside the pod"
    counts.last_error = (error.message if isinstance(error, ModelyardError) else timed_out)[:_ERROR_LENGTH]
    if counts.failed == 1:  # the counts tell the rest
        log.warning("a shadow version fails", version=str(offer.route.version.wanted), reason=counts.last_error)
