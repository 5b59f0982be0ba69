"""The process around the pod's Envoy: starts it, says when it serves, and stops it so that no call is lost.

Envoy ends at once on SIGTERM. So this process takes the signal and ends Envoy when the two stages of `core.serving` are
over: NOT_SERVING while calls are still taken, then no new connections until the running calls have ended.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.core import logs
from modelyard.envoy.addresses import UNIX_PREFIX
from modelyard.envoy.http import render
from modelyard.envoy.process import Admin, EnvoyProcess, StopSignals, command_line
from modelyard.inference.settings import InferenceSettings

from .config import NAME, bootstrap
from .handover import DRAIN, END_STREAMS, Handover
from .requirements import Requirements

_EXIT_S = 15.0
"""Envoy waits for the interpreter, which waits for its sessions to be freed."""
_JSON_LOG = '{"event":"%j","logger":"envoy.%n","level":"%l","timestamp":"%Y-%m-%dT%H:%M:%S.%fZ","service":"inference"}'

log = logs.get_logger()


def run(settings: InferenceSettings, requirements: Requirements) -> int:
    """Serves until a signal ends it. The exit status: 0 after a stop, 1 if Envoy or its Python ended by itself."""
    logs.configure(settings.log_format, settings.log_level, service="inference")
    prefix = "pod-" if settings.run_dir else "modelyard-pod-"
    folder = tempfile.TemporaryDirectory(prefix=prefix, dir=settings.run_dir)
    with folder as name, _listening_socket(settings.listen):
        return asyncio.run(_serve(settings, requirements, Path(name)))


async def _serve(settings: InferenceSettings, requirements: Requirements, folder: Path) -> int:
    signals = StopSignals()
    control, words = os.pipe()
    envoy = await _start(settings, requirements, folder, control)
    os.close(control)
    try:
        if await envoy.until_live_or(signals.stop):
            log.info("serving", address=await _address(settings.listen, envoy.admin), lane="express")
        await envoy.until_ended_or(signals.stop)
        if envoy.ended.done():
            log.error("the pod ended by itself", status=envoy.ended.result())
            return 1
        await _stop(envoy, words, signals.hurry, settings)
        return 0
    finally:
        await envoy.end(_EXIT_S)
        os.close(words)


async def _start(settings: InferenceSettings, requirements: Requirements, folder: Path, control: int) -> EnvoyProcess:
    config_file, admin_socket, grpc_socket = folder / "envoy.json", folder / "admin.sock", folder / "grpc.sock"
    modules = (requirements.module, requirements.crossing)
    config_file.write_text(render(bootstrap(settings, *modules, admin_socket, grpc_socket)))
    command = command_line(
        requirements.envoy, config_file,
        log_level="error", drain_s=settings.drain_delay_s, concurrency=settings.envoy_threads,
    )  # fmt: skip
    if settings.log_format == "json":
        command += ["--log-format", _JSON_LOG]
    handover = Handover(str(grpc_socket), control, sys.executable)
    return await EnvoyProcess.start(
        command, Admin(admin_socket), NAME,
        environment={**requirements.environment(), **handover.environment()}, pass_fds=[control],
    )  # fmt: skip


async def _stop(envoy: EnvoyProcess, words: int, hurry: asyncio.Event, settings: InferenceSettings) -> None:
    """Both stages; `hurry` ends the first early and the second at once."""
    log.info("stopping", grace_s=settings.shutdown_grace_s)
    os.write(words, DRAIN)
    urgent = asyncio.create_task(hurry.wait())
    await asyncio.wait((urgent, envoy.ended), timeout=settings.drain_delay_s, return_when=asyncio.FIRST_COMPLETED)
    urgent.cancel()
    os.write(words, END_STREAMS)
    await envoy.drain(hurry, settings.shutdown_grace_s)
    await envoy.end(_EXIT_S)
    log.info("stopped")


async def _address(listen: str, admin: Admin) -> str:
    """Where it listens, with the real port."""
    if listen.startswith(UNIX_PREFIX):
        return listen
    return f"{listen.rpartition(':')[0]}:{await asyncio.to_thread(admin.listening_port)}"


@contextmanager
def _listening_socket(listen: str) -> Iterator[None]:
    """Removes the Unix socket that is listened on, if it is one, before (a killed predecessor's) and after."""
    path = Path(listen.removeprefix(UNIX_PREFIX)) if listen.startswith(UNIX_PREFIX) else None
    if path is not None:
        path.unlink(missing_ok=True)
    try:
        yield
    finally:
        if path is not None:
            path.unlink(missing_ok=True)
