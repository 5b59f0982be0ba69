"""What is counted and timed of one version: cheap enough for every request, and adding up.

A request that reached the version is answered or failed, exactly one of them. An execution is one run of the graph; it
may carry several requests, and rows are counted where they are computed. Used from the event loop only: no locks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Duration:
    """How often something happened and how long it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Counts one that took so many nanoseconds."""
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class BatchTimes:
    """Executions of one batch size, by stage."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class Execution:
    """One run of a graph: what it computed and how long its stages took, in nanoseconds."""

    requests: int
    rows: int
    """Of all its requests together."""
    input_ns: int
    """Putting the requests' tensors together."""
    infer_ns: int
    output_ns: int
    """Taking the results apart."""
    counted: bool = False
    """Whether it is in the statistics: with the first of its requests that is answered, so never if all have left."""


@dataclass(slots=True)
class VersionStatistics:
    """Everything since the version was loaded."""

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    batches: dict[int, BatchTimes] = field(default_factory=dict)
    """By rows in the execution."""
    row_count: int = 0
    """Rows that were computed."""
    execution_count: int = 0
    last_inference_ms: int = 0
    """Milliseconds since 1970; 0 if there was none."""
    queue_ns: int = 0
    """This and the following three: sums over the requests that were answered."""
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0

    def executed(self, run: Execution) -> None:
        """One run of the graph."""
        batch = self.batches.get(run.rows)
        if batch is None:
            batch = self.batches[run.rows] = BatchTimes()
        batch.compute_input.add(run.input_ns)
        batch.compute_infer.add(run.infer_ns)
        batch.compute_output.add(run.output_ns)
        self.execution_count += 1
        self.row_count += run.rows
        self.last_inference_ms = time.time_ns() // 1_000_000

    def answered(self, total_ns: int, queue_ns: int, run: Execution, requests: int = 1) -> None:
        """Requests were answered by this run, `total_ns` after they arrived, of which they waited `queue_ns`."""
        success = self.success
        success.count += requests
        success.ns += total_ns * requests
        self.queue_ns += queue_ns * requests
        self.input_ns += run.input_ns * requests
        self.infer_ns += run.infer_ns * requests
        self.output_ns += run.output_ns * requests

    def failed(self, total_ns: int) -> None:
        """One request failed or was given up, `total_ns` after it arrived."""
        self.fail.add(total_ns)

    @property
    def queue(self) -> Duration:
        """How long answered requests waited."""
        return Duration(self.success.count, self.queue_ns)

    @property
    def compute_input(self) -> Duration:
        """How long it took to put the tensors of answered requests together."""
        return Duration(self.success.count, self.input_ns)

    @property
    def compute_infer(self) -> Duration:
        """How long the graph took for answered requests; each counts the whole run that it was part of."""
        return Duration(self.success.count, self.infer_ns)

    @property
    def compute_output(self) -> Duration:
        """How long it took to take the results for answered requests apart."""
        return Duration(self.success.count, self.output_ns)
