"""A tiny run of the benchmarks: does every part of them work? The figures mean nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import results
from benchmarks.scenarios import SCENARIOS
from benchmarks.workshop import REPOSITORY

from support.required import missing


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pod_door_and_an_echo_take_turns(tmp_path: Path) -> None:
    if shutil.which("h2load") is None:
        missing("h2load (nghttp2-client)", "MODELYARD_TEST_H2LOAD")
    folder = tmp_path / "results"
    command = [
        sys.executable, "-m", "benchmarks", "run", "small-32", "--quick", "--rounds=1", "--seconds=0.5",
        "--server=pod", "--server=door", "--server=echo-aio", "--no-second-opinion", f"--folder={folder}",
    ]  # fmt: skip
    finished = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | {"MODELYARD_BENCH_DIR": str(tmp_path / "bench")},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    figures = results.load(folder).figures(SCENARIOS["small-32"])
    assert set(figures) == {"pod", "door", "echo-aio"}
    assert all(rounds[0] for rounds in figures.values()), finished.stderr
    assert "| 10-20-40-1 network, 32 requests in flight | pod ÷ echo-cpp ≥ 0.35 | – | not measured |" in finished.stdout
    assert (folder / "chart.svg").exists()
    assert list((tmp_path / "bench/run").iterdir()) == []
