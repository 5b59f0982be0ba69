"""The chaos suite, a short part of it, as a person runs it. The long run: `make chaos`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from support.postgres_server import find_binary
from support.processes import is_alive
from support.waiting import eventually_sync

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TESTS = Path(__file__).parents[1]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    find_binary("postgres")
    return subprocess.Popen(
        [sys.executable, "-m", "chaos", "run", "--folder", str(folder), *arguments],
        env={**os.environ, "PYTHONPATH": str(TESTS)}, cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_jobs_survive_a_short_storm(tmp_path: Path) -> None:
    process = start(tmp_path, "--seed", "7", "--jobs", "3", "--minutes", "0.4", "--no-outage")
    said, _ = process.communicate(timeout=540)
    print(said)  # pytest shows it beside a failure
    assert process.returncode == 0
    assert "SURVIVED" in said


def test_a_killed_run_leaves_no_process(tmp_path: Path) -> None:
    process = start(tmp_path, "--jobs", "1", "--minutes", "5", "--no-postgres")
    try:
        eventually_sync(lambda: len(below(process.pid)) > 10, timeout=120)
        started = below(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    eventually_sync(lambda: not [one for one in started if one.is_running() and is_alive(one.pid)])


def below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)
