"""Reading perf_analyzer."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.load import Measured
from benchmarks.load.perf_analyzer import NoOpinion, input_data, parse
from onnx import TensorProto

from support import graphs

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


@pytest.mark.parametrize(("batched", "shape"), [(True, [64]), (False, [1, 64])])
def test_what_it_sends_are_tokens_of_a_vocabulary(tmp_path: Path, *, batched: bool, shape: list[int]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graphs.identity(TensorProto.INT64, ("batch", 64)))
    (request,) = input_data(path, batched=batched)["data"]
    assert request["x"]["shape"] == shape
    assert len(request["x"]["content"]) == 64
    assert all(0 <= token < 30_000 for token in request["x"]["content"])
