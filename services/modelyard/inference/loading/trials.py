"""Tries a version in another process before the pod loads it: a crash, a bomb, an endless loop there is an answer here.

The registry refuses most hostile graphs when they are uploaded. Two kinds pass every check of their form: those that
ask for more memory than there is, and those that never come to an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from typing import Any

from modelyard.core.errors import MalformedContent, Unavailable

from .trial_messages import TrialFacts, TrialTask

_PATIENCE_S = 30.0  # beyond the trial's own limit, which the trial process keeps
# What the process needs; above all not the pod's token.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
_SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
"""A process that forks must not have threads: these variables keep the libraries from starting some."""


class Trials:
    """Runs trials in a process that is started with the first one. Use it in one event loop; `close` it."""

    def __init__(self) -> None:
        self._process: _TrialProcess | None = None
        self._numbers = count(1)
        self._starting = asyncio.Lock()
        self._closed = False

    async def run(self, task: TrialTask) -> TrialFacts:
        """What the trial found.

        Raises MalformedContent with the reason if the version must not be loaded; Unavailable or OSError if it could
        not be tried.
        """
        try:
            answer = await self._ask(task)
        except OSError:  # the process has ended, perhaps long ago; a new one gets one chance
            answer = await self._ask(task)
        return _understood(answer, task)

    async def _ask(self, task: TrialTask) -> dict[str, Any]:
        process = await self._running()
        try:
            async with asyncio.timeout(task.time_s + _PATIENCE_S):
                return await process.ask(next(self._numbers), task)
        except TimeoutError:
            await self._end()
            raise Unavailable("the version could not be tried: the trial process does not answer") from None

    async def close(self) -> None:
        """Ends the process and with it every trial, for good."""
        self._closed = True
        await self._end()

    async def _end(self) -> None:
        """Ends the process; the next trial starts another one."""
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(process.stop)

    async def _running(self) -> _TrialProcess:
        async with self._starting:
            if self._closed:
                raise Unavailable("the version could not be tried: the pod is stopping")
            if self._process is None or self._process.ended:
                loop = asyncio.get_running_loop()
                self._process = await asyncio.to_thread(_TrialProcess, loop)
            return self._process


class _TrialProcess:
    """The process and who waits for its answers. Its output is read in a thread: that works in every event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Blocking. Raises OSError if the process cannot be started."""
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "modelyard.inference.loading.trial_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment | _SINGLE_THREADED,
            start_new_session=True,
        )  # fmt: skip
        self._loop = loop
        self._writing = threading.Lock()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.ended = False
        threading.Thread(target=self._read, name="trials", daemon=True).start()

    async def ask(self, number: int, task: TrialTask) -> dict[str, Any]:
        """The answer to a task. Raises OSError if the process ends."""
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._waiting[number] = answer
        try:
            self._write(json.dumps({"id": number, "task": asdict(task)}).encode() + b"\n")
            return await answer
        finally:
            del self._waiting[number]

    def stop(self) -> None:
        """Ends it. Blocking."""
        self._process.kill()  # its trials die with it
        self._process.wait()

    def _write(self, line: bytes) -> None:
        with self._writing:
            try:
                if self._process.stdin is None or self._process.stdin.closed or self.ended:
                    raise BrokenPipeError("it has ended")
                self._process.stdin.write(line)
            except OSError:
                self.ended = True  # its thread may not have said so yet, and the next try must not meet this process
                raise

    def _read(self) -> None:
        """A thread's life: as long as the process's."""
        process = self._process
        try:
            for line in process.stdout or ():
                self._call(self._settle, json.loads(line))
        finally:
            if process.stdin is not None:
                with self._writing:  # else a line might go to a file that has got the closed pipe's number
                    process.stdin.close()
            with process:  # waits for its end
                pass
            self._call(self._fail)  # also when an answer could not be read: nobody may wait for the next one

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has been closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)

    def _settle(self, message: dict[str, Any]) -> None:
        answer = self._waiting.get(message["id"])
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _fail(self) -> None:
        self.ended = True
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(OSError(f"it ended with status {self._process.returncode}"))


def _understood(answer: dict[str, Any], task: TrialTask) -> TrialFacts:
    """Raises MalformedContent unless the version passed."""
    if "facts" in answer:
        return TrialFacts(**answer["facts"])
    if "refusal" in answer:
        raise MalformedContent(answer["refusal"])
    if "fault" in answer:
        raise Unavailable(f"the version could not be tried: {answer['fault']}")
    if answer["killed_by"] == signal.SIGALRM:
        raise MalformedContent(f"loading it and computing zeros takes longer than {task.time_s:g} s")
    if answer["killed_by"] == signal.SIGKILL:
        raise MalformedContent("loading it and computing zeros takes more memory than the machine has")
    if answer["killed_by"]:
        name = signal.Signals(answer["killed_by"]).name
        raise MalformedContent(f"the graph is broken in a way that crashes the runtime ({name})")
    raise Unavailable("the version could not be tried: the trial ended without an answer")
