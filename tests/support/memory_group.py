"""A control group of the kernel with little memory: what outgrows it is killed, as on a machine that is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from .required import missing
from .waiting import eventually_sync

_MOUNT = Path("/sys/fs/cgroup")


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """The folder of a new group; whoever writes a process id into its `cgroup.procs` puts the process into it."""
    unified = (_MOUNT / "cgroup.controllers").exists()
    parent = _MOUNT if unified else _MOUNT / "memory"
    group = parent / f"modelyard-{uuid4().hex[:8]}"
    limit = group / ("memory.max" if unified else "memory.limit_in_bytes")
    try:
        group.mkdir()
        limit.write_text(str(limit_bytes))
    except OSError:
        missing("a control group for memory", "MODELYARD_MEMORY_GROUP")
    try:
        yield group
    finally:
        eventually_sync(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()
