"""The trainer as a process: started in a group of its own, signalled as a group, never outliving the worker."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from modelyard.core.leash import leashed

_LAUNCHER = Path(__file__).with_name("launcher.py")
_F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ, on Linux since 2.6.35; Python names it on some builds only
_PIPE_BYTES = 1024 * 1024
_OWN_VARIABLES = ("MODELYARD_", "CELERY_", "REMAP_SIGTERM")


def trainer_environment(worker: Mapping[str, str]) -> dict[str, str]:
    """The trainer's environment: the worker's without what is the worker's own (broker passwords, token files)."""
    kept = {name: value for name, value in worker.items() if not name.startswith(_OWN_VARIABLES)}
    # Lines arrive as they are printed; nothing is imported from the work directory.
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}


class TrainerProcess:
    """A started trainer and the reading ends of its three pipes, all non-blocking."""

    def __init__(self, process: subprocess.Popen[bytes], events: int) -> None:
        if process.stdout is None or process.stderr is None:
            raise ValueError("the process was started without pipes")
        self._process = process
        self._events = os.fdopen(events, "rb", buffering=0)
        self.pipes = {"events": self._events, "stdout": process.stdout, "stderr": process.stderr}
        """Unbuffered files by name: events, stdout, stderr."""
        for pipe in self.pipes.values():
            os.set_blocking(pipe.fileno(), False)

    @classmethod
    def start(cls, command: Sequence[str], workdir: Path) -> Self:
        """Starts `command --workdir … --events-fd …` in `workdir`; raises OSError if there is no process to be had.

        Call it from the main thread (see `modelyard.core.leash`). A command that cannot be executed ends with code 127.
        """
        environment = trainer_environment(os.environ) | {"TMPDIR": str(workdir / "tmp")}  # temporary files go with it
        return cls._start([*command, "--workdir", str(workdir)], environment, workdir, subprocess.DEVNULL)

    @classmethod
    def start_ahead(cls, command: Sequence[str]) -> Self:
        """Starts `command --events-fd …`, which imports what it needs and waits for `assign`; otherwise as `start`."""
        return cls._start(command, trainer_environment(os.environ), Path("/"), subprocess.PIPE)

    @classmethod
    def _start(cls, command: Sequence[str], environment: Mapping[str, str], folder: Path, stdin: int) -> Self:
        reading, writing = os.pipe()
        try:
            for end in (reading, writing):
                _enlarge(end)
            launched = [sys.executable, "-I", "-S", str(_LAUNCHER), *command]
            process = subprocess.Popen(  # noqa: S603 - the command comes from the worker's settings, and no shell is used
                [*leashed(launched), "--events-fd", str(writing)],
                cwd=folder, env=environment, pass_fds=(writing,), start_new_session=True,
                stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
            )  # fmt: skip
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return cls(process, reading)

    def assign(self, workdir: Path) -> bool:
        """Gives a trainer that was started ahead its folder; whether it was there to take it."""
        stdin = self._process.stdin
        if stdin is None or self.exited():
            return False
        try:
            stdin.write(f"{workdir}\n".encode())
            stdin.close()
        except BrokenPipeError:
            return False
        return True

    @property
    def pid(self) -> int:
        """Process id, which is the group's id too."""
        return self._process.pid

    def exited(self) -> bool:
        """Whether the trainer itself has ended. It stays unreaped, so that its group's id cannot be given away."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def signal_group(self, number: signal.Signals) -> None:
        """Sends a signal to the trainer and everything it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def reap(self) -> int:
        """Kills what is left of the group and answers the trainer's exit code; minus the number of a signal."""
        self.signal_group(signal.SIGKILL)
        return self._process.wait()

    def close(self) -> None:
        """Kills whatever still lives and closes the pipes."""
        if self._process.returncode is None:
            self.reap()
        for pipe in (*self.pipes.values(), self._process.stdin):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _enlarge(pipe: int) -> None:
    # Room for a burst while the worker is busy; not allowed to everybody, and not needed.
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)
