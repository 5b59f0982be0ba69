"""One prediction, from request to answer, whatever transport brought it."""

from __future__ import annotations

import asyncio
import time

from modelyard.oip import open_inference_pb2 as pb

from .calls import UNTOLD, PredictionCall
from .observing import NullObserver, PredictionObserver
from .requests import read_request, read_timeout
from .responses import prediction
from .statistics import Execution
from .table import ServingTable
from .versions import LoadedVersion

LARGE_REQUEST_BYTES = 256 * 1024
"""A request above this is read in a thread: a million text elements take a second to take apart, and nobody else's
answer may wait for that."""


class Predictor:
    """Answers predictions from the serving table. Used from the event loop; every lane of the pod calls `predict`."""

    def __init__(self, table: ServingTable, observer: PredictionObserver | None = None) -> None:
        self._table = table
        self._observer: PredictionObserver = observer or NullObserver()

    async def predict(self, request: pb.ModelInferRequest, call: PredictionCall = UNTOLD) -> pb.ModelInferResponse:
        """The answer.

        Cancelling it before the graph runs keeps the graph from running. Raises NotFound, InvalidFields, Unavailable
        while the version is being loaded, ResourceExhausted when its queue is full, DeadlineExceeded, Unimplemented.
        """
        arrival = time.perf_counter_ns()
        version = self._table.resolve(request.model_name, request.model_version)
        version.acquire()
        try:
            response = await self._answer(request, version, call, arrival)
        except BaseException as error:
            total_ns = time.perf_counter_ns() - arrival
            version.statistics.failed(total_ns)
            self._observer.failed(version, call, error, total_ns)
            raise
        finally:
            version.release()
        return response

    async def _answer(
        self, request: pb.ModelInferRequest, version: LoadedVersion, call: PredictionCall, arrival: int
    ) -> pb.ModelInferResponse:
        expires = _earlier(call.expires, read_timeout(request))
        if request.ByteSize() > LARGE_REQUEST_BYTES:
            inference = await asyncio.to_thread(read_request, request, version)
        else:
            inference = read_request(request, version)
        read_ns = time.perf_counter_ns() - arrival
        computed = await version.runner.run(inference.feeds, inference.outputs, expires)
        response = prediction(request, version, inference.outputs, computed.outputs)
        run = Execution(1, inference.rows, read_ns, computed.infer_ns, computed.output_ns)
        version.statistics.executed(run)
        self._observer.executed(version, run)
        total_ns = time.perf_counter_ns() - arrival
        version.statistics.answered(total_ns, computed.queue_ns, run)
        self._observer.answered(version, call, inference.rows, total_ns, computed.queue_ns, run)
        return response


def _earlier(expires: float | None, timeout: float | None) -> float | None:
    """When the caller gives up, by the event loop's clock: its deadline or its own `timeout` in seconds from now."""
    if timeout is None:
        return expires
    own = asyncio.get_running_loop().time() + timeout
    return own if expires is None else min(own, expires)
