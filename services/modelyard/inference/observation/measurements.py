"""How the times and sizes of one version's predictions are spread: histograms that live and go with the version."""

from __future__ import annotations

from dataclasses import dataclass, field

from modelyard.core.metrics import Histogram, seconds_histogram

from .failures import REASONS

BUCKETS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
"""From a network of a few neurons to a Transformer in a long queue."""

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def _seconds() -> Histogram:
    return seconds_histogram(BUCKETS_S)


@dataclass(slots=True)
class VersionMeasurements:
    """What was measured since the version was loaded. Changed and read in the event loop."""

    request: Histogram = field(default_factory=_seconds)
    """Of answered requests: from arrival to answer."""
    queue: Histogram = field(default_factory=_seconds)
    """Of answered requests: from the queue's end to its front."""
    compute: Histogram = field(default_factory=_seconds)
    """Of runs of the graph."""
    rows: Histogram = field(default_factory=lambda: Histogram(ROWS))
    """Of runs of the graph."""
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    """Requests by Triton's reasons."""
    load_ns: int = 0
    """Download, check, session, warm-up; 0 until it is known."""
