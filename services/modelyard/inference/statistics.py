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


@dataclass(frozen=True, slots=True)
class StageTimes:
    """How long one request was in each stage, in nanoseconds."""

    queue: int
    compute_input: int
    compute_infer: int
    compute_output: int


@dataclass(slots=True)
class VersionStatistics:
    """Everything since the version was loaded."""

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    batches: dict[int, BatchTimes] = field(default_factory=dict)
    """By rows in the execution."""
    row_count: int = 0
    execution_count: int = 0
    last_inference_ms: int = 0
    """Milliseconds since 1970; 0 if there was none."""

    def executed(self, rows: int, times: StageTimes) -> None:
        """One run of the graph over so many rows."""
        batch = self.batches.get(rows)
        if batch is None:
            batch = self.batches[rows] = BatchTimes()
        batch.compute_input.add(times.compute_input)
        batch.compute_infer.add(times.compute_infer)
        batch.compute_output.add(times.compute_output)
        self.execution_count += 1
        self.row_count += rows
        self.last_inference_ms = time.time_ns() // 1_000_000

    def answered(self, total_ns: int, times: StageTimes) -> None:
        """One request was answered, `total_ns` after it arrived."""
        self.success.add(total_ns)
        self.queue.add(times.queue)
        self.compute_input.add(times.compute_input)
        self.compute_infer.add(times.compute_infer)
        self.compute_output.add(times.compute_output)

    def failed(self, total_ns: int) -> None:
        """One request failed or was given up, `total_ns` after it arrived."""
        self.fail.add(total_ns)
