"""Reading perf_analyzer."""

from __future__ import annotations

import pytest
from benchmarks.load import Measured
from benchmarks.load.perf_analyzer import NoOpinion, parse

REPORT = """Request concurrency: 32
  Client:
    Request count: 12668
    Throughput: 3246.07 infer/sec
    p50 latency: 7991 usec
"""


def test_the_last_block_counts() -> None:
    assert parse(REPORT.replace("3246.07", "1.5") + REPORT) == Measured(3246.07, 12668, 7991.0, 7991.0)


@pytest.mark.parametrize("output", ["Failed to obtain stable measurement.\n", REPORT.replace("3246.07", "0")])
def test_no_figures_is_no_opinion(output: str) -> None:
    with pytest.raises(NoOpinion):
        parse(output)
