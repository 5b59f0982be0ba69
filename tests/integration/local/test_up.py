"""A supervisor as a process of its own: found, refused a second time, stopped, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.local import state
from support import fake_cluster
from support.fake_cluster import journal, processes
from support.processes import is_alive
from support.waiting import eventually_sync

TESTS = Path(fake_cluster.__file__).parent.parent


class Up:
    """`modelyard up` with fake programs."""

    def __init__(self, folders: Any) -> None:
        self._folders = folders
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        """Starts it and returns when it says that it is ready."""
        process = self.process = self._popen()
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def refused(self) -> str:
        """What it says when it must not start."""
        process = self._popen()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        return errors

    def close(self) -> None:
        """Kills it if it is still there."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate(timeout=60)

    def _popen(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "support.fake_cluster", str(self._folders.data), str(self._folders.programs)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(TESTS)}, stdout=pipe, stderr=pipe, text=True
        )


@pytest.fixture
def up(folders: Any) -> Iterator[Up]:
    up = Up(folders)
    yield up
    up.close()


def test_a_second_up_on_the_same_data_is_refused_with_process_and_address(folders: Any, up: Up) -> None:
    process = up.start()
    running = state.read(folders.data)
    assert running is not None
    said = Up(folders).refused()
    assert f"process {process.pid}" in said
    assert running.address in said
    assert processes(folders.programs).keys() == {"first", "second", "third"}
    assert len(journal(folders.programs, "started")) == 3


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_in_order(folders: Any, up: Up, how: signal.Signals) -> None:
    process = up.start()
    process.send_signal(how)
    assert process.wait(timeout=60) == 0
    assert journal(folders.programs, "stopped") == ["third", "second", "first"]
    assert state.discover() is None


def test_down_stops_it_from_another_process(folders: Any, up: Up) -> None:
    process = up.start()
    running = state.read(folders.data)
    assert running is not None
    # This process is the parent: the child stays a zombie, which does not count as running.
    assert state.stop(running)
    assert process.wait(timeout=60) == 0
    assert journal(folders.programs, "stopped") == ["third", "second", "first"]


def test_down_signals_nobody_whose_process_id_was_given_to_another(folders: Any, up: Up) -> None:
    process = up.start()
    running = state.read(folders.data)
    assert running is not None
    earlier = state.LocalClusterState(**{**vars_of(running), "birth": running.birth - 1})
    assert not earlier.is_running
    assert state.stop(earlier)
    assert process.poll() is None


def vars_of(running: state.LocalClusterState) -> dict[str, Any]:
    return {name: getattr(running, name) for name in running.__dataclass_fields__}


def test_nothing_outlives_a_killed_supervisor_and_the_next_up_recovers(folders: Any, up: Up) -> None:
    process = up.start()
    before = processes(folders.programs)
    running = state.read(folders.data)
    assert running is not None
    process.kill()
    eventually_sync(lambda: not any(map(is_alive, before.values())))
    assert state.discover() is None
    up.close()

    up.start()
    assert Path(running.token_file).exists()
    assert not Path(running.run_dir).exists()
    again = state.discover()
    assert again is not None
    assert again.run_dir != running.run_dir
    assert all(map(is_alive, processes(folders.programs).values()))


def test_finding_a_cluster_needs_the_standard_library_alone() -> None:
    program = (
        "import sys; before = set(sys.modules); import modelyard.local.state as state; state.discover();"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(loaded - sys.stdlib_module_names))"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "['modelyard']"
