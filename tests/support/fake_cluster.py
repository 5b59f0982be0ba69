"""The local cluster's supervisor with fake programs instead of the real ones.

As a program, `python fake_cluster.py DATA_DIR FOLDER`, it is what `modelyard up` is: prints `ready` and runs until a
signal.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from modelyard.local.cluster import ClusterBusy, ClusterOptions, local_cluster
from modelyard.local.programs import Layout, Program

from . import fake_program
from .processes import is_alive


def fake(folder: Path, name: str, behaviour: str = "good", *, stop_grace_s: float = 30.0) -> Program:
    """One fake program."""
    well = folder / f"{name}.well"

    def probe() -> str:
        return "" if well.exists() and is_alive(int(well.read_text() or 0)) else "not yet"

    command = [sys.executable, fake_program.__file__, str(folder), name, behaviour]
    return Program(name, command, probe, stop_grace_s=stop_grace_s)


def three(folder: Path) -> Callable[[Layout], list[Program]]:
    """Three good programs."""
    return lambda _layout: [fake(folder, name) for name in ("first", "second", "third")]


def journal(folder: Path, what: str) -> list[str]:
    """The names of the programs that did this, in order."""
    path = folder / "journal"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split()[1] for line in lines if line.startswith(what)]


def processes(folder: Path) -> dict[str, int]:
    """The process of each program that has ever been well, the last one."""
    return {path.stem: int(path.read_text()) for path in folder.glob("*.well")}


async def main(data_dir: str, folder: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with local_cluster(ClusterOptions(Path(data_dir), port=0), lambda _: None, three(Path(folder))):
            print("ready", flush=True)
            await stop.wait()
    except ClusterBusy as error:
        sys.exit(str(error))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
