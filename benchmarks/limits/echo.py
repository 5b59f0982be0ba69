"""Bare echo servers: gRPC in C++ and grpc.aio, with nothing behind them."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import environments, processes, workshop
from benchmarks.processes import Launch

_INSIDE = Path(__file__).with_name("inside")


@contextmanager
def running_cpp_echo(threads: int) -> Iterator[str]:
    """The C++ server with so many completion queues and threads; gives `host:port`. Raises SetUpFailed, StartFailed."""
    program, port = environments.compiled(_INSIDE / "echo.cpp"), workshop.free_port()
    with _running("echo-cpp", [str(program), f"127.0.0.1:{port}", str(threads)], port) as address:
        yield address


@contextmanager
def running_aio_echo() -> Iterator[str]:
    """The grpc.aio server; gives `host:port`. Raises StartFailed."""
    port = workshop.free_port()
    command = [sys.executable, str(_INSIDE / "echo_aio.py"), f"127.0.0.1:{port}"]
    with _running("echo-aio", command, port) as address:
        yield address


@contextmanager
def _running(name: str, command: Sequence[str], port: int) -> Iterator[str]:
    log = workshop.folder("logs") / f"{name}.log"
    with processes.running(Launch(command, log, {}, ready=lambda: _listens(port), stop_grace_s=2)):
        yield f"127.0.0.1:{port}"


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
