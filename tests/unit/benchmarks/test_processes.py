"""Servers are stopped with everything that they started."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
from benchmarks.processes import Launch, StartFailed, running

from support.processes import is_alive

ORPHANING = """
import pathlib, signal, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
middle = (
    "import subprocess, sys;"
    "print(subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)"
)
orphan = subprocess.run([sys.executable, "-c", middle, *sleep], capture_output=True, text=True).stdout
pathlib.Path(sys.argv[1]).write_text(orphan)
time.sleep(600)
"""


def test_an_orphan_goes_with_its_server(tmp_path: Path) -> None:
    told = tmp_path / "orphan"
    launch = Launch(
        command=[sys.executable, "-c", ORPHANING, str(told)],
        log=tmp_path / "log",
        environment={},
        ready=lambda: told.exists() and bool(told.read_text().strip()),
    )
    with running(launch) as server:
        orphan = int(told.read_text())
        assert is_alive(orphan)
        assert orphan not in [child.pid for child in server.children(recursive=True)]
    assert not is_alive(server.pid)
    psutil.wait_procs([psutil.Process(orphan)] if psutil.pid_exists(orphan) else [], timeout=10)
    assert not is_alive(orphan)


def test_a_server_that_ends_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    launch = Launch([sys.executable, "-c", "raise SystemExit('no such model')"], tmp_path / "log", {}, lambda: False)
    with pytest.raises(StartFailed, match="no such model"), running(launch):
        pytest.fail("it must not be given out")


def test_a_server_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    program = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
    launch = Launch([sys.executable, "-c", program, str(told)], tmp_path / "log", {}, lambda: False, start_limit_s=3.0)
    with pytest.raises(StartFailed, match="not ready in 3 s"), running(launch):
        pytest.fail("it must not be given out")
    assert not is_alive(int(told.read_text()))
