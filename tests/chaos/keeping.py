"""Keeps the programs of a cluster running as a service manager does, and breaks them when told to."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from modelyard.core.leash import leashed
from modelyard.local.programs import Program

_TEND_S = 0.1
_RESTART_PAUSE_S = 0.5
_OWN_VARIABLES = ("MODELYARD_", "XDG_", "CELERY_", "GRPC_")
MARK = "CHAOS_RUN"
"""Environment variable that every process of a run inherits, so that what is left over can be found."""


@dataclass
class KeptProgram:
    """One program. It is started again whenever it ends, unless it is held down."""

    program: Program
    log_file: Path
    stop_signal: signal.Signals = signal.SIGTERM
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of Popen."""
    is_leashed: bool = True
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    own_ends: list[int] = field(default_factory=list)
    """Exit codes of ends that nobody here had asked for."""
    _not_before: float = 0.0
    _held: bool = False
    _asked_to_end: bool = False

    @property
    def name(self) -> str:
        """The program's name."""
        return self.program.name

    def tend(self, environment: Mapping[str, str]) -> None:
        """Starts it if it should run and does not. Call it from one thread that outlives the program (see `leash`)."""
        if self.process is not None and self.process.poll() is None:
            return
        if self.process is not None:
            self._note_end(self.process.returncode)
        if not self._held and time.monotonic() >= self._not_before:
            self._start(environment)

    def _note_end(self, code: int) -> None:
        if not self._asked_to_end:
            self.own_ends.append(code)
        self.process, self._asked_to_end = None, False
        self._not_before = max(self._not_before, time.monotonic() + _RESTART_PAUSE_S)

    def _start(self, environment: Mapping[str, str]) -> None:
        command = leashed(self.program.command) if self.is_leashed else self.program.command
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command, env={**environment, **self.program.environment},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **self.options,
            )  # fmt: skip
        self.starts += 1

    def tree(self) -> list[psutil.Process]:
        """The program and all processes below it, itself first; empty if it does not run."""
        process = self.process
        if process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def is_well(self) -> bool:
        """Whether it runs and answers."""
        return self.process is not None and self.process.poll() is None and self.program.probe() == ""

    def end(self, number: signal.Signals, *, down_s: float = 0.0) -> bool:
        """Signals the main process to end, and has it stay away for so long; whether it ran."""
        self._not_before = time.monotonic() + down_s
        process = self.process
        if process is None or process.poll() is not None:
            return False
        self._asked_to_end = True
        process.send_signal(number)
        return True

    def hold(self) -> None:
        """Ends it with SIGKILL and keeps it away until `release`."""
        self._held = True
        self.end(signal.SIGKILL)

    def release(self) -> None:
        """Lets it be started again."""
        self._held = False

    def signal_tree(self, number: signal.Signals) -> list[psutil.Process]:
        """Signals it and everything below it; answers those that were there."""
        reached = self.tree()
        for process in reached:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return reached


class Keeper:
    """Keeps programs until `close`, which leaves nothing of them running."""

    def __init__(self, run: str) -> None:
        """`run`: marks the processes of this run."""
        self._run = run
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}
        self.environment = {**kept, MARK: run}
        self.programs: dict[str, KeptProgram] = {}
        self._closing, self._idle, self._stopped = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._tend, name="keeper", daemon=True)

    def start(self) -> None:
        """Begins to keep what was added, and what will be."""
        self._thread.start()

    def add(self, program: KeptProgram) -> KeptProgram:
        """Takes a program into care; it is started in the order of adding."""
        self.programs = {**self.programs, program.name: program}
        return program

    def wait_until_well(self, names: Iterable[str], timeout_s: float = 120.0) -> None:
        """Returns when these answer; raises TimeoutError with the end of the first one's log that does not."""
        deadline = time.monotonic() + timeout_s
        for name in names:
            program = self.programs[name]
            while not program.is_well():
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{name} is not well: {program.program.probe()}\n{tail(program.log_file)}")
                time.sleep(0.1)

    def close(self) -> list[str]:
        """Ends everything, last started first; the command lines of processes that were left and had to be killed."""
        self._closing.set()
        if self._thread.is_alive():
            self._idle.wait()
        for program in reversed(self.programs.values()):
            program.signal_tree(signal.SIGCONT)
            _stop(program)
        left = self.marked()
        lines = [_command_line(process) for process in left]
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=10)
        self._stopped.set()
        return lines

    def marked(self) -> list[psutil.Process]:
        """All living processes that come from this run, except the caller."""
        return [process for process in psutil.process_iter() if process.pid != os.getpid() and self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self._run and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            return False

    def _tend(self) -> None:
        while not self._closing.wait(_TEND_S):
            for program in self.programs.values():
                with suppress(OSError):  # no room for the log, no memory: tried again
                    program.tend(self.environment)
        self._idle.set()
        self._stopped.wait()  # a leash is tied to the thread that tied it: this one stays until all have ended


def _stop(kept: KeptProgram) -> None:
    process = kept.process
    if process is None or process.poll() is not None:
        return
    process.send_signal(kept.stop_signal)
    try:
        process.wait(kept.program.stop_grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _command_line(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:120]}"
    return str(process.pid)


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log."""
    with suppress(OSError):
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    return ""
