"""A real PostgreSQL on a Unix socket, in a folder of its own, gone after the tests."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from .required import missing
from .waiting import eventually_sync

_USER = "modelyard"
_NOBODY = 65534
# Faster, and the data need not survive a power cut.
_OPTIONS = ("fsync=off", "full_page_writes=off", "listen_addresses=", "max_connections=200", "shared_buffers=32MB")


def find_binary(name: str) -> Path:
    """`initdb` or `postgres`, from PATH or where Debian puts them; skips the test (or fails it, in CI) without."""
    found = shutil.which(name)
    candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    if found is None and not candidates:
        missing(f"PostgreSQL's {name}", "MODELYARD_TEST_POSTGRES")
    return Path(found) if found else candidates[0]


class PostgresServer:
    """A running server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)

    def new_database(self) -> str:
        """An empty database's URL."""
        name = f"test_{next(self._numbers)}"
        asyncio.run(self._execute(f"CREATE DATABASE {name}"))
        return f"postgresql+asyncpg://{_USER}@/{name}?host={self._folder}"

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            asyncio.run(self._execute("SELECT 1"))
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(host=str(self._folder), user=_USER, database="postgres")
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server for the length of a `with`."""
    initdb, postgres = find_binary("initdb"), find_binary("postgres")
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:  # its path must be short enough for a socket
        data = Path(folder) / "data"
        owner = _unprivileged(Path(folder))
        subprocess.run(
            [initdb, "-D", data, "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True, stdout=subprocess.DEVNULL, cwd=folder, **owner,
        )  # fmt: skip
        options = [part for option in _OPTIONS for part in ("-c", option)]
        process = subprocess.Popen(
            [postgres, "-D", data, "-k", folder, *options], stderr=subprocess.DEVNULL, cwd=folder, **owner
        )
        try:
            server = PostgresServer(Path(folder))
            eventually_sync(server.answers)
            yield server
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nobody needs the data any more
            process.wait()


def _unprivileged(folder: Path) -> dict[str, Any]:
    """PostgreSQL refuses to run as root: the arguments that make it run as nobody, who then owns the folder."""
    if os.geteuid() != 0:
        return {}
    os.chown(folder, _NOBODY, _NOBODY)
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
