"""A cluster for the length of the demo: `modelyard up`, as anybody would run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.client.connection import Endpoint
from modelyard.local import state

_START_LIMIT_S = 90.0
_STOP_LIMIT_S = 90.0
_POLL_S = 0.05


class ClusterFailedError(Exception):
    """The cluster did not start, or did not stop cleanly."""


@contextmanager
def running_cluster(data_dir: Path) -> Iterator[Endpoint]:
    """Starts a cluster on a free port; it prints a line per program. Stops it at the end and sees that it is gone.

    It is written down below `data_dir` only: a cluster that the user runs meanwhile stays the one that clients find.
    """
    command = [Path(sys.executable).with_name("modelyard"), "up", "--data-dir", data_dir, "--port", "0"]
    environment = os.environ | {"XDG_STATE_HOME": str(data_dir / "state")}
    process = subprocess.Popen(command, env=environment)  # noqa: S603 - our own command
    try:
        yield _wait_until_running(process, data_dir)
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(_STOP_LIMIT_S)
    if code != 0:
        raise ClusterFailedError(f"`modelyard up` ended with exit code {code}")


def _wait_until_running(process: subprocess.Popen[bytes], data_dir: Path) -> Endpoint:
    """The cluster's door, once every service behind it can be called."""
    deadline = time.monotonic() + _START_LIMIT_S
    while True:
        running = state.read(data_dir / "state/modelyard")
        if running is not None:
            return Endpoint(running.address, Path(running.token_file).read_text().strip())
        if process.poll() is not None or time.monotonic() > deadline:
            raise ClusterFailedError("the cluster did not start; see its lines above")
        time.sleep(_POLL_S)
