"""The registry as a process of its own, as in `modelyard up`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard.core.channels import sync_channel
from modelyard.core.health import SERVING

from .identity import Identity
from .waiting import eventually_sync


class RegistryProgram:
    """`python -m modelyard.registry` on a Unix socket. A context manager; `start` and `terminate` may be repeated."""

    def __init__(self, folder: Path, identity: Identity, **settings: str) -> None:
        """`settings` are names as in the environment, without the prefix."""
        self.address = f"unix:{folder}/registry.sock"
        self.log_file = folder / "registry.log"
        variables = {
            "LISTEN": self.address,
            "TOKEN_KEYS_FILE": str(identity.keys_file),
            "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/registry.db",
            "BLOB_URL": f"file://{folder}/blobs",
            "DRAIN_DELAY_S": "0",
            "SHUTDOWN_GRACE_S": "600",
            **settings,
        }
        prefixed = {f"MODELYARD_REGISTRY_{name}": value for name, value in variables.items()}
        self.environment = {**os.environ, **prefixed}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()  # a start that fails leaves nothing running
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.wait()
        print(self.log())  # pytest shows it beside a failure: an internal error says no more than where to look

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The program."""
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Starts it and returns when it says that it serves."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "modelyard.registry"], env=self.environment, stdout=log, stderr=log
            )
        eventually_sync(lambda: self.process.poll() is not None or self._is_serving(), timeout=90)
        assert self.process.poll() is None, self.log()

    def terminate(self) -> int:
        """Sends SIGTERM and answers the exit code."""
        self.process.terminate()
        return self.process.wait(timeout=60)

    def memory_bytes(self) -> int:
        """What the program itself holds in memory, without its readers."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def log(self) -> str:
        """What it has written."""
        return self.log_file.read_text()

    def _is_serving(self) -> bool:
        with sync_channel(self.address) as channel:
            try:
                stub: Any = health_pb2_grpc.HealthStub(channel)  # its stubs do not know Check
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            except grpc.RpcError:
                return False
        return bool(answer.status == SERVING)
