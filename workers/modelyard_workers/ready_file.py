"""The file by which a worker says that it is ready; health checks read it, each in a process of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path

READY_AGE_S = 30.0


def write_ready(file: Path) -> None:
    """Says that this process is ready now."""
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    partial.write_text(f"{os.getpid()}\n")
    partial.replace(file)


def is_ready(file: Path) -> bool:
    """Whether a worker said that it is ready within the last half minute, and lives."""
    try:
        if time.time() - file.stat().st_mtime > READY_AGE_S:
            return False
        os.kill(int(file.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True
