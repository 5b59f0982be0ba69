"""How a version computes: decided once, when it is loaded, and kept with the figures that the decision rests on.

Read by the batcher, and by ModelConfig, which tells it to clients.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement: the best time to compute so many requests of one row together, copying them included."""

    rows: int
    run_ns: int
    """Processor time where one thread does all the work, else by the clock."""

    @property
    def rows_per_second(self) -> float:
        """What one runner would reach if it did nothing else."""
        return self.rows * 1e9 / self.run_ns


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """How a version computes."""

    max_batch_size: int = 0
    """The most rows of one request; 0 if the graph has no batch dimension."""
    batch_rows: int = 1
    """The most rows of requests that are computed together; 1 if requests are never joined."""
    split_rows: int = 1
    """What is there is shared among the runners, but not into batches smaller than this."""
    inline_rows: int = 0
    """Batches of up to so many rows are computed in the event loop, since they take less than handing them to a thread
    does; 0 if none is."""
    runners: int = 1
    """Threads of the version, hence batches that are computed at once."""
    graph_threads: int = 1
    """Threads inside one computation."""
    queue_size: int = 1024
    """Requests that may wait."""
    reason: str = "not measured"
    """Why requests are joined, or not, for people."""
    figures: tuple[Figure, ...] = ()
    """What was measured, by rows; empty if nothing was."""

    @property
    def batching(self) -> bool:
        """Whether requests are computed together."""
        return self.batch_rows > 1
