"""A whole cluster as a user has it: `modelyard up` in a process of its own, found by address and token."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard import Client

from .waiting import eventually_sync

MODELYARD = Path(sys.executable).with_name("modelyard")


@dataclass
class UpCluster:
    """A cluster on a data directory; may be stopped and started again."""

    data_dir: Path
    home: Path
    port: int
    options: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def at(cls, folder: Path, *options: str, **settings: str) -> UpCluster:
        """Not started yet. `settings`: environment variables for the programs."""
        (folder / "home").mkdir()
        return cls(folder / "data", folder / "home", free_port(), options, tuple(settings.items()))

    @property
    def address(self) -> str:
        """The door's."""
        return f"127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """For the command: a home of its own, so that clusters of one person do not meet."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MODELYARD_", "XDG_"))}
        return kept | {"HOME": str(self.home)} | dict(self.settings)

    def start(self) -> None:
        """Starts and returns when the cluster can be called."""
        command = [MODELYARD, "up", "--data-dir", self.data_dir, "--port", str(self.port), *self.options]
        with (self.home / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )  # fmt: skip
        eventually_sync(self._is_up, timeout=90, interval=0.1)

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home / "up.log").read_text()
        # A killed `up` leaves the file behind. Without it the command, which takes a second, need not be asked.
        written = self.home / ".local" / "state" / "modelyard" / "cluster.json"
        return written.exists() and self.run("status", "--json").returncode == 0

    def stop(self) -> int:
        """Stops it as Ctrl-C does; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=90)
        self.process = None
        return code

    def kill(self) -> None:
        """What a power cut does to `up` itself."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def run(self, *arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs the command as the person who started the cluster."""
        return subprocess.run(
            [MODELYARD, *arguments],
            env=self.environment, text=True, capture_output=True, input=stdin, timeout=300, check=False,
        )  # fmt: skip

    def json(self, *arguments: str | Path) -> Any:
        """The JSON that a command prints; fails if the command does."""
        finished = self.run(*arguments, "--json")
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout)

    @property
    def token(self) -> str:
        """The administrator's."""
        state = json.loads((self.data_dir / "cluster.json").read_text())
        return Path(state["token_file"]).read_text().strip()

    def client(self, token: str | None = None) -> Client:
        """The Python client."""
        return Client(self.address, self.token if token is None else token)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
