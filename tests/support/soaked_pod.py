"""A pod as a process of its own, with what it and its children hold in memory."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Self

import psutil

from modelyard.core.probe import probe

from .identity import Identity
from .waiting import eventually_sync


class SoakedPod:
    """`python -m modelyard.inference` on a Unix socket, for tests whose event loop serves its registry. An async
    context manager."""

    def __init__(self, registry_address: str, identity: Identity, folder: Path, **settings: str) -> None:
        """`settings` are names as in the environment, without the prefix."""
        folder.mkdir(exist_ok=True)
        token_file = folder / "token"
        token_file.write_text(identity.token("service"))
        self.address = f"unix:{folder}/pod.sock"
        self.log_file = folder / "log"
        variables = {
            "LISTEN": self.address, "REGISTRY_ADDRESS": registry_address, "CACHE_DIR": str(folder / "cache"),
            "TOKEN_KEYS_FILE": str(identity.keys_file), "TOKEN_FILE": str(token_file), "DRAIN_DELAY_S": "0",
            **settings,
        }  # fmt: skip
        self._environment = os.environ | {f"MODELYARD_INFERENCE_{name}": value for name, value in variables.items()}
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._start)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await asyncio.to_thread(self._stop)

    def _start(self) -> None:
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "modelyard.inference"], env=self._environment, stdout=log, stderr=log
            )
        eventually_sync(lambda: self.process.poll() is not None or probe(self.address, "") == "")
        assert self.process.poll() is None, self.log_file.read_text()

    def _stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The program."""
        assert self._process is not None
        return self._process

    def memory_bytes(self) -> Counter[str]:
        """Resident memory by program, without those in which versions are only tried."""
        program = psutil.Process(self.process.pid)
        found: Counter[str] = Counter()
        for process in (program, *program.children(recursive=True)):
            try:
                if not any("trial" in argument for argument in process.cmdline()):
                    found[process.name()] += int(process.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        return found
