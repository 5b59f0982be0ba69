"""Decides how a version computes, by trying it out when it is loaded.

On a processor, a multilayer perceptron computes 32 rows in little more than the time of one, so that joining requests
multiplies its throughput, while a convolutional network gains nothing by it and does better with a request on each
core. No rule about the graph tells them apart as surely as a few runs do.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from .computing import RowsMismatch, split
from .feeds import Feeds, join
from .independence import why_rows_depend
from .plan import ExecutionPlan, Figure
from .samples import GUESSED_SIZES, sample_inputs, take_rows
from .sessions import REFUSALS, GraphSession

BATCH_SIZES = (1, 8, 32, 128)
TIMES = 30
"""Runs of each size, of which the best counts: what disturbs a run only ever makes it longer."""
LEAST_TIMES = 2
SIZE_S = 0.03
"""A size is run no more than `LEAST_TIMES` once it has taken so long in all."""
BUDGET_S = 0.3
"""No further size is tried once so much time has gone by; the first two always are."""
HANDOVER_NS = 50_000
"""What a request costs besides the graph: queue, thread and answer. Joined requests share it."""
WORTH_JOINING = 1.5
"""Requests are joined, as many as are worth it, if that computes at least so many times the rows."""
WORTH_A_LITTLE = 1.08
"""From so many times on they are joined in small batches: whoever waits gains, and nobody is held for long."""
NEARLY_ALL = 0.95
"""Small batches are the smallest that have this share of the best throughput."""
ONCE_MORE = 3
"""So small a gain counts if it is still there when all sizes have been run so many times more, in turns: what disturbed
one size before does not disturb it again."""
ONCE_MORE_NS = 1_000_000_000
"""Where all sizes together take longer, a small gain is left: whoever is alone would wait too long for the others."""
NO_WORSE = 0.8
"""A larger batch with this share of the best throughput is still taken, when so many requests wait: the difference is
within what two measurements differ by, and a bound too low costs more than one too high."""
UNMEASURED = 4
"""Where there was no time to measure larger batches and the largest was the best, they may be so many times larger."""
HALF = 0.5
INLINE_NS = 200_000
"""Batches that take less are computed in the event loop: it spends about that much on waking a thread and being woken
by it, with the requests that come in between."""

WEIGHTS_NS = 1_000_000
READ_ONCE = 4.0
"""A graph that takes so long for one row, and computes so many times the rows in large batches, spends most of a run
on reading its weights."""
MOST_THREADS = 4
"""Of one run: what matrix products gain by more becomes less with each, and others wait meanwhile."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for. What is 0 or None is decided here."""

    runners: int
    queue_size: int
    max_batch_size: int
    """Of one request, and of requests together."""
    graph_threads: int = 1
    batching: bool | None = None


def plan_execution(session: GraphSession, wishes: Wishes, *, predictable: bool) -> ExecutionPlan:
    """How the version computes. Takes about `BUDGET_S`, or some dozen runs if those take longer; run it in a thread.

    `predictable`: whether the shapes of its inputs alone decide what a run takes. If not, one caller's values could
    hold up the event loop, or those who share a batch with it. Raises what the runtime raises for a graph at fault.
    """
    figures = _measure(session, wishes.max_batch_size)
    obstacle = _obstacle(session, wishes, predictable=predictable)
    batch_rows, split_rows = (1, 1) if obstacle else _batch_sizes(figures, wishes)
    inline = max((figure.rows for figure in figures if figure.run_ns <= INLINE_NS), default=0)
    return ExecutionPlan(
        max_batch_size=wishes.max_batch_size if session.signature.batched else 0,
        batch_rows=batch_rows,
        split_rows=split_rows,
        inline_rows=inline if predictable else 0,
        runners=wishes.runners,
        graph_threads=wishes.graph_threads,
        queue_size=wishes.queue_size,
        reason=_reason(wishes, obstacle, joined=batch_rows > 1),
        figures=figures,
    )


def threads_of_run(plan: ExecutionPlan, cpus: int) -> int:
    """How many threads one run should have, given what was measured with one.

    Runs at once read the weights once each, and share among them the requests that are there. Where reading is most of
    a run, one that takes all requests and has the processors to itself is done sooner.
    """
    if not plan.batching or not plan.figures:
        return 1
    alone, best = plan.figures[0], max(plan.figures, key=_rate)
    reads_most = alone.run_ns >= WEIGHTS_NS and _rate(best) >= READ_ONCE * _rate(alone)
    return min(cpus, MOST_THREADS) if reads_most else 1


def replan(plan: ExecutionPlan, session: GraphSession, wishes: Wishes) -> ExecutionPlan:
    """The same plan for a session with other threads. Its figures stay those of one thread.

    Threads may part a sum in another way, so that a row's result depends on the batch: looked at again.
    """
    obstacle = why_rows_depend(session)
    if obstacle:
        plan = replace(plan, batch_rows=1, split_rows=1, reason=_reason(wishes, obstacle, joined=False))
    else:
        reason = f"{plan.reason}; each run has {wishes.graph_threads} threads, since most of it is reading weights"
        plan = replace(plan, reason=reason)
    return replace(plan, runners=wishes.runners, graph_threads=wishes.graph_threads)


def _obstacle(session: GraphSession, wishes: Wishes, *, predictable: bool) -> str:
    """Why requests must not be joined, for people; empty if they may be."""
    if wishes.batching is False:
        return "so the settings say"
    if not session.signature.batched:
        return "the graph has no batch dimension"
    if not predictable:
        return "values in the inputs decide how long the graph computes"
    return why_rows_depend(session)


def _measure(session: GraphSession, max_batch_size: int) -> tuple[Figure, ...]:
    """The best time of each batch size that there is time for; none if the graph takes no input that we make up."""
    size = _accepted_size(session)
    if size is None:
        return ()
    figures: list[Figure] = []
    tried: list[list[Feeds]] = []
    until = time.monotonic() + BUDGET_S
    for rows in BATCH_SIZES if session.signature.batched else (1,):
        # Two runs of the next size, which take up to four times as long as the last.
        late = len(figures) > 1 and time.monotonic() + 2 * 4 * figures[-1].run_ns / 1e9 > until
        if rows > max_batch_size or late:
            break
        requests = _requests(session, rows, size)
        try:
            figures.append(Figure(rows, _best_ns(session, requests, until)))
        except REFUSALS:
            break
        tried.append(requests)
    return _measured_once_more(session, figures, tried) if figures and _gains_a_little(figures) else tuple(figures)


def _measured_once_more(
    session: GraphSession, figures: Sequence[Figure], tried: Sequence[list[Feeds]]
) -> tuple[Figure, ...]:
    """The figures with the best times of some further runs."""
    best = [figure.run_ns for figure in figures]
    for _ in range(ONCE_MORE):
        best = [min(ns, _run_ns(session, requests)) for ns, requests in zip(best, tried, strict=True)]
    return tuple(Figure(figure.rows, ns) for figure, ns in zip(figures, best, strict=True))


def _accepted_size(session: GraphSession) -> int | None:
    """A size of the free dimensions that the graph takes."""
    for size in GUESSED_SIZES if session.signature.free_shapes else GUESSED_SIZES[:1]:
        try:
            session.run(sample_inputs(session.signature, [1.0], size), session.all_outputs)
        except REFUSALS:
            continue
        return size
    return None


def _requests(session: GraphSession, rows: int, guessed_size: int) -> list[Feeds]:
    """As many requests with one row each; a single one for a graph without a batch dimension."""
    inputs = sample_inputs(session.signature, [1.0] * rows, guessed_size)
    alone = [inputs] if not session.signature.batched else [take_rows(inputs, [row]) for row in range(rows)]
    return [Feeds.of(one, session.all_outputs, 1, session.signature) for one in alone]


def _best_ns(session: GraphSession, requests: Sequence[Feeds], until: float) -> int:
    """The best of a few runs, the first of which prepares what later ones need."""
    begun = time.monotonic()
    times: list[int] = []
    while len(times) <= TIMES:
        times.append(_run_ns(session, requests))
        if len(times) > LEAST_TIMES and time.monotonic() > min(until, begun + SIZE_S):
            break
    return min(times[1:])


def _run_ns(session: GraphSession, requests: Sequence[Feeds]) -> int:
    """One run.

    With putting requests together and taking results apart: what is gained by joining large tensors may not be worth
    copying them. Processor time, where that is all there is to a run: a pod that loads a version is busy with others.
    """
    clock = time.thread_time_ns if session.runs_in_caller else time.perf_counter_ns
    types = [tensor.datatype for tensor in session.signature.outputs]
    start = clock()
    arrays = session.run(join(requests, session.signature), session.all_outputs)
    with suppress(RowsMismatch):  # told by the test of the rows
        split(arrays, types, [1] * len(requests))
    return max(1, clock() - start)


def _batch_sizes(figures: tuple[Figure, ...], wishes: Wishes) -> tuple[int, int]:
    """The most rows worth computing together, 1 if it is not worth it, and the fewest worth splitting to."""
    if not figures:
        return (wishes.max_batch_size, 1) if wishes.batching else (1, 1)
    best = max(map(_rate, figures))
    if _gain(figures) < WORTH_JOINING and not wishes.batching:
        if not _gains_a_little(figures):
            return 1, 1
        return next(figure.rows for figure in figures if _rate(figure) >= NEARLY_ALL * best), 1
    half = next(figure.rows for figure in figures if _rate(figure) >= HALF * best)
    most = max(figure.rows for figure in figures if _rate(figure) >= NO_WORSE * best)
    if most == figures[-1].rows:
        most = min(UNMEASURED * most, max(most, BATCH_SIZES[-1]))
    return max(2, min(most, wishes.max_batch_size)), min(half, most)


def _gain(figures: Sequence[Figure]) -> float:
    """How many times the rows of the smallest batch the best one computes in the same time."""
    return max(map(_rate, figures)) / _rate(figures[0])


def _gains_a_little(figures: Sequence[Figure]) -> bool:
    """Whether joining gains too little for large batches, and enough for small ones that nobody waits long for."""
    quick = sum(figure.run_ns for figure in figures) <= ONCE_MORE_NS
    return quick and WORTH_A_LITTLE <= _gain(figures) < WORTH_JOINING


def _rate(figure: Figure) -> float:
    """Rows per nanosecond as callers get them."""
    return figure.rows / (figure.run_ns + HANDOVER_NS)


def _reason(wishes: Wishes, obstacle: str, *, joined: bool) -> str:
    if obstacle:
        return f"requests are computed one by one: {obstacle}"
    if wishes.batching:
        return "requests are joined: so the settings say"
    return "requests are joined: measured to be faster" if joined else "requests are computed one by one: as fast"
