"""Where the running cluster of this machine is written down. Standard library only: the Python client reads it.

Two files say the same: `cluster.json` in the data directory, for `up` and `down` on that directory, and one in the
user's state directory, for clients that were told nothing. Both are private to the user, since they lead to a token.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

FILE_NAME = "cluster.json"
_POLL_S = 0.05


@dataclass(frozen=True)
class LocalClusterState:
    """A cluster that was started on this machine."""

    pid: int
    """The supervisor's."""
    birth: int
    """When that process began, in clock ticks since boot: a process id alone may have passed to another."""
    address: str
    """The door's `host:port`."""
    data_dir: str
    run_dir: str
    """Where its sockets are."""
    token_file: str
    """The administrator's token."""
    metrics: dict[str, str] = field(default_factory=dict)
    """Where programs serve their metrics: `host:port` by program."""

    @property
    def is_running(self) -> bool:
        """Whether that very process is still there."""
        return birth_of(self.pid) == self.birth


def discover() -> LocalClusterState | None:
    """The running cluster of this user, or None."""
    return read(pointer_folder())


def read(folder: Path) -> LocalClusterState | None:
    """The running cluster that is written down in a folder, or None if there is none or it is gone."""
    state = leftover(folder)
    return state if state is not None and state.is_running else None


def leftover(folder: Path) -> LocalClusterState | None:
    """The cluster that is written down in a folder, also if it is gone."""
    try:
        return LocalClusterState(**json.loads((folder / FILE_NAME).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write(state: LocalClusterState, folder: Path) -> None:
    """Writes the state down, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = folder / f"{FILE_NAME}.{os.getpid()}"
    with os.fdopen(os.open(scratch, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(state), file)
    scratch.replace(folder / FILE_NAME)


def remove(state: LocalClusterState, folder: Path) -> None:
    """Takes the state away if it is still this one."""
    with suppress(OSError):
        if leftover(folder) == state:
            (folder / FILE_NAME).unlink()


def stop(running: LocalClusterState, limit_s: float = 120.0) -> bool:
    """Tells a cluster to stop, as Ctrl-C does, and waits; whether it has."""
    if running.is_running:
        with suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGINT)
    deadline = time.monotonic() + limit_s
    while running.is_running and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return not running.is_running


def pointer_folder() -> Path:
    """The user's state directory (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local/state") / "modelyard"


def birth_of(pid: int) -> int | None:
    """When a process began (proc(5), field 22 of `stat`), or None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name stands in parentheses and may hold anything; the fields behind the last one are plain.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
