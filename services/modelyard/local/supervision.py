"""Keeps one program running: starts it, waits until it is well, restarts it when it ends, stops it when told.

Every program is leashed: if the supervisor is killed, the kernel ends the programs too.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from modelyard.core.leash import leashed

from .programs import Program

_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.5, 10.0
_STEADY_S = 30.0
"""After a program ran for so long, its next end is taken for its first."""
_POLL_S = 0.05
_LOG_LIMIT_BYTES = 10 * 1024 * 1024


class Happening(Enum):
    """What can be told of a program."""

    HEALTHY = "healthy"
    ENDED = "ended"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ProgramEvent:
    """Something that happened to a program."""

    program: str
    happening: Happening
    pid: int
    seconds: float
    """Since it was started (HEALTHY, ENDED), or since it was told to stop (STOPPED)."""
    detail: str = ""


class StartFailed(Exception):
    """A program did not become well; the text says why, with the end of its log."""


class Supervisor:
    """One program's keeper. Use it from the main thread's event loop: a leash is tied to the thread that ties it."""

    def __init__(self, program: Program, log_file: Path, on_event: Callable[[ProgramEvent], None]) -> None:
        self.program = program
        self._log_file = log_file
        self._on_event = on_event
        self._process: asyncio.subprocess.Process | None = None
        self._started = 0.0
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the program and keeps it running from then on; raises StartFailed if it does not become well."""
        await self._spawn()
        await self._until_well(self.program.start_limit_s)
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Stops the program: SIGTERM, and SIGKILL after its grace."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        began = time.monotonic()
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self.program.stop_grace_s)
            detail = ""
        except TimeoutError:
            process.kill()
            await process.wait()
            detail = f"killed: it did not stop within {self.program.stop_grace_s:.0f} s"
        self._tell(Happening.STOPPED, process.pid, time.monotonic() - began, detail)

    async def _spawn(self) -> None:
        _rotate(self._log_file)
        with self._log_file.open("ab") as log:
            self._started = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(
                *leashed(self.program.command),
                env=os.environ | self.program.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal is for the supervisor, which stops all in order
            )

    async def _until_well(self, limit_s: float) -> None:
        assert self._process is not None  # noqa: S101 - it was just started
        deadline = self._started + limit_s
        while reason := await asyncio.to_thread(self.program.probe):
            if self._process.returncode is not None:
                raise StartFailed(self._failure(f"ended with exit code {self._process.returncode}"))
            if time.monotonic() > deadline:
                raise StartFailed(self._failure(f"is not well after {limit_s:.0f} s: {reason}"))
            await asyncio.sleep(_POLL_S)
        self._tell(Happening.HEALTHY, self._process.pid, time.monotonic() - self._started)

    def _failure(self, what: str) -> str:
        return f"{self.program.name} {what}; the end of {self._log_file}:\n{tail(self._log_file)}"

    async def _keep(self) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            assert self._process is not None  # noqa: S101 - set before the keeper starts
            code = await self._process.wait()
            ran = time.monotonic() - self._started
            self._tell(Happening.ENDED, self._process.pid, ran, f"exit code {code}")
            pause = _FIRST_PAUSE_S if ran > _STEADY_S else pause
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE_S)
            # A program that does not become well ends or becomes well later, and the next round sees its end. One that
            # cannot even be started (no memory, no room for the log) is tried again; the old process ends that round.
            with suppress(StartFailed, OSError):
                await self._spawn()
                await self._until_well(self.program.start_limit_s)

    def _tell(self, happening: Happening, pid: int, seconds: float, detail: str = "") -> None:
        self._on_event(ProgramEvent(self.program.name, happening, pid, seconds, detail))


def tail(path: Path, lines: int = 8) -> str:
    """The last lines of a file."""
    with suppress(OSError):
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    return ""


def _rotate(path: Path) -> None:
    """Puts a log that has grown large aside; one old one is kept."""
    with suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_LIMIT_BYTES:
            path.replace(path.with_suffix(".log.1"))
