"""The `modelyard` command, as somebody at a terminal runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Command:
    """`modelyard …` in a process of its own: its output must not mix with the log of a server in the test."""

    environment: dict[str, str]

    def run(self, *arguments: str) -> Result:
        """To its end."""
        with self.start(*arguments) as process:
            stdout, stderr = process.communicate(timeout=60)
        return Result(process.returncode, stdout, stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Started, to be watched while the job goes on."""
        return subprocess.Popen(
            [sys.executable, "-m", "modelyard.cli", *arguments],
            env=os.environ | self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
