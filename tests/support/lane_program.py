"""`python -m modelyard.inference` as processes, on either lane, before a registry that lives in this process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.probe import probe

from .identity import Identity
from .waiting import eventually_sync

START_S = 60.0


@dataclass
class LaneProgram:
    """A running pod."""

    process: subprocess.Popen[bytes]
    address: str
    log_file: Path

    def lines(self, **fields: str) -> list[dict[str, Any]]:
        """What it has logged with these fields."""
        found = [json.loads(line) for line in self.log_file.read_text().splitlines()]
        return [line for line in found if all(line.get(key) == value for key, value in fields.items())]

    @property
    def life(self) -> list[str]:
        """What it has logged of its life."""
        return [line["event"] for line in self.lines() if line["event"] in ("serving", "stopping", "stopped")]

    @property
    def children(self) -> list[int]:
        """The processes that it started: on the express lane, Envoy."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(number) for number in listed.split()]

    def until_serving(self, service: str = "") -> None:
        """Returns when its health says so."""

        def well() -> bool:
            assert self.process.poll() is None, self.log_file.read_text()
            return probe(self.address, service) == ""

        eventually_sync(well, timeout=START_S)

    def stop(self) -> int:
        """SIGTERM; answers the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@contextmanager
def lane_program(
    registry_address: str, identity: Identity, folder: Path, *, lane: str = "express", **settings: str
) -> Iterator[LaneProgram]:
    """A pod with everything it writes in `folder`. Its path must fit a socket's."""
    folder.mkdir(exist_ok=True)
    token_file = folder / "token"
    token_file.write_text(identity.token("service"))
    address = f"unix:{folder}/pod.sock"
    variables: Mapping[str, str] = {
        "LISTEN": address, "REGISTRY_ADDRESS": registry_address, "CACHE_DIR": str(folder / "cache"), "LANE": lane,
        "TOKEN_KEYS_FILE": str(identity.keys_file), "TOKEN_FILE": str(token_file), **settings,
    }  # fmt: skip
    environment = os.environ | {f"MODELYARD_INFERENCE_{name}": value for name, value in variables.items()}
    environment["TMPDIR"] = str(folder)
    log_file = folder / "log"
    with log_file.open("wb") as log:
        command = [sys.executable, "-m", "modelyard.inference"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    program = LaneProgram(process, variables["LISTEN"], log_file)
    try:
        yield program
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
