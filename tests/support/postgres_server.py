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
from dataclasses import dataclass
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


@dataclass(frozen=True)
class PostgresProgram:
    """How to run a server on a folder that was made for it."""

    command: list[str]
    options: dict[str, Any]
    """Arguments of Popen."""


def make_postgres(folder: Path) -> PostgresProgram:
    """Makes an empty server in `folder`, whose path must be short enough for a socket."""
    initdb, postgres = find_binary("initdb"), find_binary("postgres")
    data, owner = folder / "data", _unprivileged(folder)
    subprocess.run(
        [initdb, "-D", data, "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True, stdout=subprocess.DEVNULL, cwd=folder, **owner,
    )  # fmt: skip
    options = [part for option in _OPTIONS for part in ("-c", option)]
    return PostgresProgram([str(postgres), "-D", str(data), "-k", str(folder), *options], {"cwd": folder, **owner})


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server for the length of a `with`."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        program = make_postgres(Path(folder))
        process = subprocess.Popen(program.command, stderr=subprocess.DEVNULL, **program.options)
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
