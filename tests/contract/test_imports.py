"""What each program loads when it starts, in a process of its own: the heavy libraries only where they belong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.conformance.models.graphs import write_graphs

HEAVY = {"torch", "onnx", "onnxruntime", "onnxscript", "pyarrow", "celery", "sqlalchemy", "sklearn"}

ALLOWED = {
    "modelyard": set(),
    "modelyard.client": set(),
    "modelyard.cli.main": set(),
    "modelyard.door.__main__": set(),
    "modelyard.local.cluster": set(),
    "modelyard.gateway.__main__": {"celery", "sqlalchemy"},
    "modelyard.registry.__main__": {"onnx", "pyarrow", "sqlalchemy"},
    "modelyard.inference.__main__": {"onnxruntime", "onnx"},
    # The worker forks: what is imported before that would be shared with every trainer, torch and CUDA above all.
    "modelyard_workers.__main__": set(),  # all that its health check loads
    "modelyard_workers.program": {"celery"},
}


@pytest.mark.parametrize("module", ALLOWED)
def test_a_program_loads_only_what_it_may(module: str) -> None:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(printed.split()) & HEAVY <= ALLOWED[module]


@pytest.mark.parametrize("module", ["modelyard.inference.execution.sessions", "modelyard_workers.trainer.parity"])
def test_onnx_runtime_leaves_no_trace_of_what_it_loads(module: str, tmp_path: Path) -> None:
    home, graphs = tmp_path / "home", tmp_path / "graphs"
    home.mkdir()
    graphs.mkdir()
    graph, *_others = write_graphs(graphs)
    code = f"import {module}, onnxruntime; onnxruntime.InferenceSession({str(graph)!r})"
    # Without the variables by which it finds out that nobody real runs it.
    subprocess.run([sys.executable, "-c", code], env={"HOME": str(home)}, check=True)
    assert [path for path in home.rglob("*") if path.is_file()] == []
