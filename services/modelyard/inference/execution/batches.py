"""Requests on their way through a version, and the batches that they leave in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol, TypeAlias

from modelyard.inference.observation.statistics import Execution

from .feeds import Feeds
from .sessions import RunControl

PRIORITY_LEVELS: Final = 100
"""Priorities are 1, the first, to so many."""
DEFAULT_PRIORITY: Final = 50


def level_of(priority: int) -> int:
    """Where a request waits that asked for this priority. As in Triton, 0 or too large a number means the default."""
    return priority if 1 <= priority <= PRIORITY_LEVELS else DEFAULT_PRIORITY


class OutputContents(NamedTuple):
    """One computed output, ready for the wire."""

    shape: tuple[int, ...]
    raw: bytes


class Computed(NamedTuple):
    """A computed request."""

    outputs: list[OutputContents]
    """In the order asked."""
    queue_ns: int
    run: Execution
    """The run that computed it; shared with the other requests of its batch."""


Outcome: TypeAlias = "Computed | Exception"


class Outlet(Protocol):
    """Where the outcome of a request goes. An `asyncio.Future` is one."""

    def done(self) -> bool:
        """Whether nobody waits for the outcome any more: it is there, or the caller has gone."""

    def set_result(self, result: Computed, /) -> None:
        """It was computed."""

    def set_exception(self, exception: Exception, /) -> None:
        """It was not."""


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """One request from its arrival in the queue to its answer. Everything but `feeds` belongs to the event loop."""

    feeds: Feeds
    result: Outlet
    expires: float | None = None
    """The event loop's time after which its caller waits no more."""
    priority: int = DEFAULT_PRIORITY
    queued_ns: int = field(default_factory=time.perf_counter_ns)
    batch: Batch | None = None
    """None while it waits."""
    calls: int = 1
    """How many calls it is for: calls that came together may be one request with all their rows."""


class Run(NamedTuple):
    """What is being computed of a batch: all of it, or one request after the other if that failed."""

    requests: Sequence[QueuedRequest]
    control: RunControl


class Batch:
    """Requests that leave the queue together."""

    __slots__ = ("calls", "disproved", "outcomes", "requests", "rows", "run", "took_ns")

    def __init__(self, requests: list[QueuedRequest]) -> None:
        self.requests = requests
        self.rows = sum([request.feeds.rows for request in requests])
        self.calls = sum([request.calls for request in requests])
        self.run = Run(requests, RunControl())
        """Replaced by whoever computes; read by the event loop, once each time: it is looked at and stopped as one."""
        self.outcomes: Sequence[Outcome] = ()
        """By request, once computed."""
        self.took_ns = 0
        """What computing it took."""
        self.disproved = False
        """Whether the graph turned out not to give one row of results for each row of inputs."""

    def stop_if_unwanted(self) -> None:
        """Stops the run, between two nodes of the graph, if nobody waits for it any more."""
        run = self.run
        if all(request.result.done() for request in run.requests):
            run.control.stop()
