"""One prediction, from request to answer, whatever transport brought it."""

from __future__ import annotations

import asyncio
import time

from modelyard.oip import open_inference_pb2 as pb

from .requests import Inference, read_request, read_timeout
from .responses import prediction
from .running import Computed
from .statistics import StageTimes
from .table import ServingTable
from .versions import LoadedVersion

LARGE_REQUEST_BYTES = 256 * 1024
"""A request above this is read in a thread: a million text elements take a second to take apart, and nobody else's
answer may wait for that."""


class Predictor:
    """Answers predictions from the serving table. Used from the event loop; every lane of the pod calls `predict`."""

    def __init__(self, table: ServingTable) -> None:
        self._table = table

    async def predict(self, request: pb.ModelInferRequest, expires: float | None = None) -> pb.ModelInferResponse:
        """The answer. `expires`: the event loop's time after which the caller waits no more.

        Cancelling it before the graph runs keeps the graph from running. Raises NotFound, InvalidFields, Unavailable
        while the version is being loaded, ResourceExhausted when its queue is full, DeadlineExceeded, Unimplemented.
        """
        arrival = time.perf_counter_ns()
        version = self._table.resolve(request.model_name, request.model_version)
        version.acquire()
        try:
            response = await _answer(request, version, expires, arrival)
        except BaseException:
            version.statistics.failed(time.perf_counter_ns() - arrival)
            raise
        finally:
            version.release()
        return response


async def _answer(
    request: pb.ModelInferRequest, version: LoadedVersion, expires: float | None, arrival: int
) -> pb.ModelInferResponse:
    timeout = read_timeout(request)
    if timeout is not None:
        own = asyncio.get_running_loop().time() + timeout
        expires = own if expires is None else min(own, expires)
    if request.ByteSize() > LARGE_REQUEST_BYTES:
        inference = await asyncio.to_thread(read_request, request, version)
    else:
        inference = read_request(request, version)
    read_ns = time.perf_counter_ns() - arrival
    computed = await version.runner.run(inference.feeds, inference.outputs, expires)
    response = prediction(request, version, inference.outputs, computed.outputs)
    _count(version, inference, computed, read_ns, arrival)
    return response


def _count(version: LoadedVersion, inference: Inference, computed: Computed, read_ns: int, arrival: int) -> None:
    times = StageTimes(computed.queue_ns, read_ns, computed.infer_ns, computed.output_ns)
    version.statistics.executed(inference.rows, times)
    version.statistics.answered(time.perf_counter_ns() - arrival, times)
