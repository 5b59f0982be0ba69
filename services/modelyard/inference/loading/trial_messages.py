"""What a pod and its trial process say to each other: JSON, one object a line."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.inference.serving.desired import WantedTensor


@dataclass(frozen=True, slots=True)
class TrialTask:
    """A version to try."""

    path: str
    """Of the ONNX file."""
    inputs: tuple[WantedTensor, ...]
    """As the registry recorded them; empty if it did not."""
    outputs: tuple[WantedTensor, ...]
    graph_threads: int
    mapped_weights: bool
    location: str
    """The file beside it that the graph may point to; empty for none."""
    warm_up_batch_sizes: tuple[int, ...]
    memory_bytes: int
    """The most it may take."""
    time_s: float
    """The longest it may take, by the clock on the wall."""
    run_s: float
    """The longest that one run of it may take."""


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """What a trial has found of a version that loads."""

    memory_bytes: int
    """What a loaded and warmed-up version keeps in memory."""
