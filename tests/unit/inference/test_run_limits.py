"""Bounds on runs: graphs that turn hostile on some inputs are stopped, and the session goes on answering."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modelyard.core.errors import DeadlineExceeded
from modelyard.inference.execution.run_watch import RunWatch
from modelyard.inference.execution.sessions import GraphSession, RunControl, RunLimits, RuntimeOptions
from support import hostile_graphs
from support.waiting import eventually_sync

TESTS = Path(__file__).parents[2]


@pytest.fixture
def watch() -> Iterator[RunWatch]:
    watch = RunWatch(0.2)
    yield watch
    watch.close()


def answer(session: GraphSession, value: float) -> float:
    (result,) = session.run({"x": np.array([[value]], np.float32)}, ["y"])
    return float(result[0, 0])


def test_an_endless_run_is_stopped_and_says_so(watch: RunWatch, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(hostile_graphs.looping())
    session = GraphSession(path, RuntimeOptions(device="cpu"), RunLimits(watch))
    assert answer(session, 3) == 24
    with pytest.raises(DeadlineExceeded, match=r"computed for longer than 0\.2 s, the most this pod allows"):
        answer(session, 2.0**62)
    assert answer(session, 3) == 24
    assert not watch._begun


def test_an_endless_warm_up_is_stopped(watch: RunWatch, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(hostile_graphs.looping(2.0**62))
    session = GraphSession(path, RuntimeOptions(device="cpu"), RunLimits(watch))
    with pytest.raises(DeadlineExceeded):
        session.warm_up([1])


def test_only_the_run_that_is_late_is_stopped(watch: RunWatch) -> None:
    late, ended = RunControl(), RunControl()
    watch.begin(late)
    watch.begin(ended)
    watch.end(ended)
    eventually_sync(lambda: late.overdue)
    assert late.options.terminate
    assert not ended.overdue
    assert not ended.options.terminate


_MEMORY = """
    import sys
    from pathlib import Path
    import numpy as np
    from modelyard.core.errors import ResourceExhausted
    from modelyard.inference.execution import run_memory
    from modelyard.inference.execution.sessions import GraphSession, RunLimits, RuntimeOptions

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    memory = run_memory.shared(200_000_000)
    assert run_memory.shared(200_000_000) is memory and run_memory.shared(0) is None
    hostile, other = (
        GraphSession(Path(path), RuntimeOptions(device="cpu"), RunLimits(memory=memory)) for path in sys.argv[1:]
    )
    before = resident()
    def answer(session, value):
        return float(session.run({"x": np.array([[value]], np.float32)}, ["y"])[0][0, 0])
    for elements in (1e11, 1e9, 6e7):
        try:
            answer(hostile, elements)
        except ResourceExhausted as error:
            print(error)
        else:
            raise AssertionError(elements)
        assert answer(other, 3) == 24 and answer(hostile, 3) == 6
    # What one run has left behind is no obstacle for the next: 160 MB, then as much in another size.
    assert answer(hostile, 4e7) > 0 and answer(hostile, 4.5e7) > 0
    memory.reclaim()
    assert resident() - before < 50_000_000, resident() - before
"""


def test_runs_that_ask_for_too_much_are_refused_and_leave_nothing_behind(tmp_path: Path) -> None:
    # A process of its own: the runtime's arena is one per process and stays.
    paths = tmp_path / "allocating.onnx", tmp_path / "looping.onnx"
    for path, content in zip(paths, (hostile_graphs.allocating(), hostile_graphs.looping()), strict=True):
        path.write_bytes(content)
    command = [sys.executable, "-c", textwrap.dedent(_MEMORY), *map(str, paths)]
    result = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "computing this takes more memory than there is (200000000 bytes" in result.stdout
