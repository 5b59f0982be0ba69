"""Where the benchmarks keep what they build and write; nothing of it is in the repository."""

from __future__ import annotations

import os
import socket
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

WORKSHOP = Path(os.environ.get("MODELYARD_BENCH_DIR", REPOSITORY / ".bench"))
"""Virtual environments, compiled programs, models, logs and raw results: gigabytes. May be deleted at any time."""


def folder(*names: str) -> Path:
    """A folder in the workshop, made if needed."""
    path = WORKSHOP.joinpath(*names)
    path.mkdir(parents=True, exist_ok=True)
    return path


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
