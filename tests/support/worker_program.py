"""The worker program as a process of its own, and a gateway's hand on the bell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import psutil
from celery import Celery

from modelyard.core.doorbell import DEFAULT_QUEUE, TASK_NAME, celery_queue
from modelyard_workers.settings import WorkerSettings

from .waiting import eventually_sync


def ring(broker_url: str, name: str, queue: str = DEFAULT_QUEUE, **options: Any) -> None:
    """Sends the doorbell for a job, the way the gateway does."""
    with Celery(broker=broker_url, set_as_current=False) as celery:
        celery.send_task(TASK_NAME, args=[name], queue=celery_queue(queue), ignore_result=True, **options)


class WorkerProgram:
    """`python -m modelyard_workers` in a process group of its own. Use it as a context manager."""

    def __init__(self, settings: WorkerSettings, folder: Path, prefix: Sequence[str] = ()) -> None:
        """`prefix`: a command that becomes the program that is given to it."""
        self._prefix = prefix
        self.ready_file = folder / "worker.ready"
        self.log_file = folder / "worker.log"
        changed = settings.model_copy(update={"ready_file": self.ready_file})
        self.environment = {**os.environ, **_variables(changed)}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", "modelyard_workers"],
                env=self.environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            self.kill()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The main process."""
        assert self._process is not None
        return self._process

    def wait_until_ready(self) -> None:
        """Returns when doorbells are heard."""
        eventually_sync(lambda: self.ready_file.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log()

    def pool_processes(self) -> list[int]:
        """Process ids of the pool."""
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def terminate(self) -> int:
        """Sends SIGTERM to the main process and answers the exit code."""
        self.process.terminate()
        return self.process.wait(timeout=60)

    def terminate_group(self) -> int:
        """Sends SIGTERM to all of the program's processes, as service managers do, and answers the exit code."""
        os.killpg(self.process.pid, signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """Kills the main process; the others are to notice."""
        self.process.kill()
        self.process.wait()

    def check(self) -> int:
        """The exit code of `--check`."""
        command = [sys.executable, "-m", "modelyard_workers", "--check"]
        return subprocess.run(command, env=self.environment, check=False, timeout=60).returncode

    def log(self) -> str:
        """What it has written so far."""
        return self.log_file.read_text(errors="replace")


def _variables(settings: WorkerSettings) -> dict[str, str]:
    """The environment variables that make these settings."""
    values = settings.model_dump(mode="json", exclude_none=True)
    return {
        f"MODELYARD_WORKER_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
    }
