"""Servers as processes of their own session, stopped with everything they started, orphans too."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_POLL_S = 0.1


class StartFailed(Exception):
    """A server ended or did not become ready in time; the text has the end of its log."""


@dataclass(frozen=True)
class Launch:
    """How to start a server."""

    command: Sequence[str]
    log: Path
    """Standard output and error go there."""
    environment: Mapping[str, str]
    """Added to ours."""
    ready: Callable[[], bool]
    """Asked again and again; may raise nothing."""
    start_limit_s: float = 120.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace_s: float = 20.0
    """Then SIGKILL for whatever is left of its session."""


@contextmanager
def running(launch: Launch) -> Iterator[psutil.Process]:
    """The started server, which is ready; stopped at the end. Raises StartFailed."""
    launch.log.parent.mkdir(parents=True, exist_ok=True)
    with launch.log.open("wb") as log:
        started = subprocess.Popen(
            launch.command,
            env={**os.environ, **launch.environment},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_until_ready(launch, started)
        yield psutil.Process(started.pid)
    finally:
        _stop(started, launch)


def _wait_until_ready(launch: Launch, started: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + launch.start_limit_s
    while not launch.ready():
        if started.poll() is not None:
            raise StartFailed(f"{launch.command[0]} ended with {started.returncode}:\n{tail(launch.log)}")
        if time.monotonic() > deadline:
            raise StartFailed(f"{launch.command[0]} not ready in {launch.start_limit_s:g} s:\n{tail(launch.log)}")
        time.sleep(_POLL_S)


def _stop(started: subprocess.Popen[bytes], launch: Launch) -> None:
    """The server itself by its signal, then whatever is left of its session by SIGKILL."""
    with suppress(ProcessLookupError):
        started.send_signal(launch.stop_signal)
    with suppress(subprocess.TimeoutExpired):
        started.wait(launch.stop_grace_s)
    for process in members(started.pid):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    started.wait()


def members(session: int) -> list[psutil.Process]:
    """The processes of a session, found by its id: a child whose parent is gone still belongs to it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def tail(log: Path, lines: int = 30) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
