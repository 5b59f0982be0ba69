"""Computes a batch: puts the inputs of its requests together, runs the graph once, and takes the results apart.

Runs in a runner's thread or in the event loop; touches nothing but the batch it is given.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from modelyard.core.errors import Cancelled
from modelyard.inference.observation.statistics import Execution
from modelyard.oip.datatypes import Datatype
from modelyard.oip.tensors import Array, encode_raw

from .batches import Batch, Computed, Outcome, OutputContents, QueuedRequest, Run
from .feeds import join
from .sessions import GraphSession, RunControl

SLICED_AT_ONCE_BYTES = 64 * 1024
"""Results up to this size are copied out as a whole and cut as bytes, which is quicker; above, each caller's rows are
copied once."""


class RowsMismatch(Exception):
    """The graph does not give one row of results for each row of inputs, so nobody knows which rows are whose."""


def compute(session: GraphSession, batch: Batch) -> None:
    """Fills in the batch's outcomes; never raises.

    If the run over all requests fails, each is run by itself: only those that are at fault hear of an error.
    """
    begun = time.perf_counter_ns()
    try:
        batch.outcomes = _run(session, batch.run)
    except Exception as error:  # noqa: BLE001 - raised again where the caller waits
        batch.disproved = isinstance(error, RowsMismatch)
        requests = batch.requests
        batch.outcomes = [error] if len(requests) == 1 else [_alone(session, batch, request) for request in requests]
    batch.took_ns = time.perf_counter_ns() - begun


def _alone(session: GraphSession, batch: Batch, request: QueuedRequest) -> Outcome:
    """One request of a batch that failed."""
    batch.run = Run([request], RunControl())
    if request.result.done():  # asked after the run can be stopped: whoever leaves later stops it
        return Cancelled("its caller has left")  # which nobody will hear
    try:
        return _run(session, batch.run)[0]
    except Exception as error:  # noqa: BLE001 - raised again where the caller waits
        return error


def _run(session: GraphSession, run: Run) -> list[Computed]:
    """One run of the graph. Raises RowsMismatch, and what the session raises."""
    begun = time.perf_counter_ns()
    requests = run.requests
    names = requests[0].feeds.outputs
    feeds = join([request.feeds for request in requests], session.signature)
    joined = time.perf_counter_ns()
    arrays = session.run(feeds, names, run.control)
    computed = time.perf_counter_ns()
    types = session.signature.outputs_by_name
    rows = [request.feeds.rows for request in requests]
    outputs = split(arrays, [types[name].datatype for name in names], rows)
    done = time.perf_counter_ns()
    calls = sum([request.calls for request in requests])
    execution = Execution(calls, sum(rows), joined - begun, computed - joined, done - computed)
    return [
        Computed(contents, begun - request.queued_ns, execution)
        for request, contents in zip(requests, outputs, strict=True)
    ]


def split(arrays: Sequence[Array], types: Sequence[Datatype], rows: Sequence[int]) -> list[list[OutputContents]]:
    """The results by request, given how many rows each has. Raises RowsMismatch. One request gets all there is."""
    if len(rows) == 1:
        return [
            [OutputContents(array.shape, encode_raw(array, kind)) for array, kind in zip(arrays, types, strict=True)]
        ]
    total = sum(rows)
    if any(array.shape[:1] != (total,) for array in arrays):
        raise RowsMismatch
    columns = [_cut(array, kind, rows) for array, kind in zip(arrays, types, strict=True)]
    return [list(contents) for contents in zip(*columns, strict=True)]


def _cut(array: Array, datatype: Datatype, rows: Sequence[int]) -> list[OutputContents]:
    """One output, cut into the requests' rows."""
    tail = array.shape[1:]
    contents: list[OutputContents] = []
    start = 0
    if datatype.itemsize and array.nbytes <= SLICED_AT_ONCE_BYTES:
        whole = encode_raw(array, datatype)
        row_bytes = len(whole) // array.shape[0]
        for count in rows:
            end = start + count * row_bytes
            contents.append(OutputContents((count, *tail), whole[start:end]))
            start = end
        return contents
    for count in rows:
        contents.append(OutputContents((count, *tail), encode_raw(array[start : start + count], datatype)))
        start += count
    return contents
