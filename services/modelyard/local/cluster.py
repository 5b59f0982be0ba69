"""The whole cluster on one machine: starts every program, keeps them running, stops them in order."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import state
from .keys import ensure_identity
from .programs import WITH_METRICS, Layout, Program, local_programs
from .redis_program import RedisMissing
from .state import LocalClusterState
from .supervision import ProgramEvent, StartFailed, Supervisor

_LONGEST_PARENT_BYTES = 60
"""Leaves room for `/modelyard-XXXXXXXX/NAME.sock` within the 107 bytes of a socket's path (unix(7))."""


class ClusterBusy(Exception):
    """A cluster runs on this data directory already, or the port is taken."""


@dataclass(frozen=True)
class ClusterOptions:
    """What a person can choose."""

    data_dir: Path
    port: int = 8500
    open_predict: bool = False
    """Anybody who reaches the port (which listens on loopback only) may predict without a token."""


@asynccontextmanager
async def local_cluster(
    options: ClusterOptions,
    on_event: Callable[[ProgramEvent], None],
    programs: Callable[[Layout], list[Program]] | None = None,
) -> AsyncIterator[LocalClusterState]:
    """A running cluster for the length of an `async with`, in the main thread.

    Raises ClusterBusy, or StartFailed if a program does not become well; then nothing is left running.
    `programs`: other programs than the usual ones, for tests.
    """
    data_dir = options.data_dir.absolute()
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(data_dir), _run_dir() as run_dir:
        _clean_up_after(state.leftover(data_dir))
        identity, door = ensure_identity(data_dir / "identity"), f"127.0.0.1:{_port(options.port)}"
        layout = Layout(data_dir, run_dir, identity, door, dict(zip(WITH_METRICS, _free_addresses(), strict=True)))
        made = programs(layout) if programs else local_programs(layout, open_predict=options.open_predict)
        logs = layout.folder("logs")
        supervisors = [Supervisor(program, logs / f"{program.name}.log", on_event) for program in made]
        # In its own folder from the first moment, so that `down`, a second `up` and the next one know of it; where
        # clients look, only while it can be called.
        with _written_down(layout, data_dir):
            try:
                await _start(supervisors)
                with _written_down(layout, state.pointer_folder()) as written:
                    yield written
            finally:
                for supervisor in reversed(supervisors):
                    await supervisor.stop()


async def _start(supervisors: list[Supervisor]) -> None:
    """The broker first, then all together: each finds the others when they are there."""
    first, *others = supervisors
    await first.start()
    starts = [asyncio.create_task(supervisor.start()) for supervisor in others]
    try:
        await asyncio.gather(*starts)
    finally:
        for task in starts:
            task.cancel()
        await asyncio.gather(*starts, return_exceptions=True)


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """One cluster per data directory. The lock goes with the process, however it ends."""
    with (data_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterBusy(_who_runs(data_dir)) from None
        yield


def _who_runs(data_dir: Path) -> str:
    running = state.read(data_dir)
    where = f" at {running.address} (process {running.pid})" if running else ""
    return f"a cluster on {data_dir} is running already{where}; stop it with: modelyard down --data-dir {data_dir}"


@contextmanager
def _run_dir() -> Iterator[Path]:
    """A private folder for sockets. Not in XDG_RUNTIME_DIR, which goes at logout, while the cluster may stay."""
    path = Path(tempfile.mkdtemp(prefix="modelyard-", dir=_folder_for_sockets()))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _folder_for_sockets() -> str:
    """The temporary folder, unless its path is too long for the sockets in it."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= _LONGEST_PARENT_BYTES else "/tmp"  # noqa: S108 - mkdtemp makes it private


def _clean_up_after(gone: LocalClusterState | None) -> None:
    """Takes away what a killed `up` left: its sockets. Its programs ended with it, see `leash`."""
    if gone is not None and Path(gone.run_dir).name.startswith("modelyard-"):
        shutil.rmtree(gone.run_dir, ignore_errors=True)


def _port(wanted: int) -> int:
    """The port, or a free one for 0; raises ClusterBusy if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise ClusterBusy(f"port {wanted} is taken; choose another with --port") from error
        return int(probe.getsockname()[1])


def _free_addresses() -> list[str]:
    """A free loopback address for the metrics of each program that has some."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in WITH_METRICS]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{probe.getsockname()[1]}" for probe in probes]


@contextmanager
def _written_down(layout: Layout, folder: Path) -> Iterator[LocalClusterState]:
    """Lets others find the cluster by a folder, for the length of the `with`."""
    written = LocalClusterState(
        pid=os.getpid(),
        birth=state.birth_of(os.getpid()) or 0,
        address=layout.door,
        data_dir=str(layout.data_dir),
        run_dir=str(layout.run_dir),
        token_file=str(layout.identity.token_file("admin")),
        metrics=dict(layout.metrics),
    )
    state.write(written, folder)
    try:
        yield written
    finally:
        state.remove(written, folder)


__all__ = ["ClusterBusy", "ClusterOptions", "RedisMissing", "StartFailed", "local_cluster"]
