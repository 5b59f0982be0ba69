"""The `modelyard` command, as somebody at a terminal runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from click.testing import Result
from typer.testing import CliRunner

from modelyard.cli import output
from modelyard.cli.main import app


@dataclass(frozen=True)
class Command:
    """`modelyard …` with an address and a token in its environment."""

    environment: dict[str, str]

    def run(self, *arguments: str) -> Result:
        """To its end, in this process: a server in the test must not log to standard output meanwhile."""
        # What is printed on measured its width when it was made, for whichever test came first.
        output.out.width = int(self.environment.get("COLUMNS", "80"))
        return CliRunner().invoke(app, list(arguments), env=self.environment)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Started in a process of its own, to be watched while the job goes on."""
        return subprocess.Popen(
            [sys.executable, "-m", "modelyard.cli", *arguments],
            env=os.environ | self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
