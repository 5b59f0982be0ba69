"""A real door (Envoy) before real gRPC upstreams, each a process of its own that a test can kill and start again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from modelyard.envoy.process import Admin

from . import echo_upstream
from .waiting import eventually_sync

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]
START_S = 60.0


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Upstream:
    """An `echo_upstream` on a Unix socket."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.address = f"unix:{folder / name}.sock"
        self._journal = folder / f"{name}.journal"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts it and returns when it listens."""
        command = [sys.executable, echo_upstream.__file__, self.address, self.name, str(self._journal)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def send(self, number: signal.Signals) -> None:
        """Sends a signal that does not end it."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, how: signal.Signals) -> None:
        """Sends the signal and waits for the end."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def calls(self, tag: str = "") -> list[str]:
        """`METHOD TAG` of every call that reached it and whose tag begins so."""
        return [line for line in self._lines(tag) if not line.startswith("cancelled ")]

    def cancelled(self, tag: str) -> list[str]:
        """Those that hung until their callers cancelled them."""
        return [line for line in self._lines(tag) if line.startswith("cancelled ")]

    def _lines(self, tag: str) -> list[str]:
        lines = self._journal.read_text().splitlines() if self._journal.exists() else []
        return [line for line in lines if line.partition(" ")[2].startswith(tag)]


@dataclass
class Door:
    """A running door."""

    process: subprocess.Popen[bytes]
    port: int
    admin: Admin

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    def channel(self) -> grpc.Channel:
        """A new blocking channel."""
        return grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)

    def aio_channel(self) -> grpc.aio.Channel:
        """A new asyncio channel."""
        return grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)

    def statistic(self, name: str) -> int:
        """One of Envoy's counters."""
        body = self.admin.request("GET", f"/stats?filter=^{name}$")
        return int(body.rpartition(":")[2])


@dataclass
class Yard:
    """The upstreams and, before them, the door."""

    folder: Path
    gateway: Upstream
    registry: Upstream
    pods: Sequence[Upstream]
    doors: list[Door] = field(default_factory=list)

    @property
    def upstreams(self) -> list[Upstream]:
        """All of them."""
        return [self.gateway, self.registry, *self.pods]

    @property
    def door(self) -> Door:
        """The first door."""
        return self.doors[0]

    def open_door(self, environment: Mapping[str, str]) -> Door:
        """Starts a door before these upstreams; `environment` adds to its settings."""
        port = free_port()
        admin_socket = self.folder / f"admin{len(self.doors)}.sock"
        settings = {
            "LISTEN": f"127.0.0.1:{port}",
            "GATEWAY_ADDRESSES": self.gateway.address,
            "REGISTRY_ADDRESSES": self.registry.address,
            "INFERENCE_ADDRESSES": ",".join(pod.address for pod in self.pods),
            "ADMIN_SOCKET": str(admin_socket),
            "CONFIG_FILE": str(admin_socket.with_suffix(".json")),
            **environment,
        }
        variables = {f"MODELYARD_DOOR_{name}": value for name, value in settings.items()}
        process = subprocess.Popen([sys.executable, "-m", "modelyard.door"], env={**os.environ, **variables})
        door = Door(process, port, Admin(admin_socket))
        self.doors.append(door)
        eventually_sync(door.admin.is_live, timeout=START_S)
        return door

    def close(self) -> None:
        """Ends everything."""
        for door in self.doors:
            door.process.send_signal(signal.SIGTERM)
            door.process.send_signal(signal.SIGTERM)  # in a hurry
        for door in self.doors:
            door.process.wait()
        for upstream in self.upstreams:
            upstream.end(signal.SIGKILL)


@contextmanager
def open_yard(**environment: str) -> Iterator[Yard]:
    """A gateway, a registry, two pods and a door, for the length of a `with`. The folder's path fits a socket."""
    with tempfile.TemporaryDirectory(prefix="door-") as name:
        folder = Path(name)
        pods = [Upstream(folder, "pod-a"), Upstream(folder, "pod-b")]
        yard = Yard(folder, Upstream(folder, "gateway"), Upstream(folder, "registry"), pods)
        try:
            for upstream in yard.upstreams:
                upstream.start()
            yard.open_door(environment)
            yield yard
        finally:
            yard.close()


Metadata = Sequence[tuple[str, str]]


def unary(channel: grpc.Channel | grpc.aio.Channel, method: str) -> Any:
    """A stub for raw bytes. Untyped: grpc's types cannot say "no serializer, so bytes"."""
    return channel.unary_unary(method)


def call(channel: grpc.Channel, method: str, request: bytes = b"hello", metadata: Metadata = ()) -> bytes:
    """One unary call with raw bytes; raises grpc.RpcError."""
    answer: bytes = unary(channel, method)(request, metadata=metadata, timeout=60)
    return answer
