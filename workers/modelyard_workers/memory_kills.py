"""Whether the kernel has killed somebody here for want of memory."""

from __future__ import annotations

from pathlib import Path


def count_memory_kills(root: Path = Path("/")) -> int | None:
    """How often the kernel's OOM killer has struck in this process's control group (v2, else v1), else on this machine.

    None if the kernel does not tell. Read it before and after: a trainer that was killed while the count rose was
    killed for its memory. Sources: Documentation/admin-guide/cgroup-v2.rst (`memory.events`), cgroup-v1/memory.rst
    (`memory.oom_control`), and /proc/vmstat since Linux 4.13.
    """
    for path, key in (*_group_files(root), (root / "proc/vmstat", "oom_kill")):
        count = _counter(path, key)
        if count is not None:
            return count
    return None


def _group_files(root: Path) -> list[tuple[Path, str]]:
    try:
        entries = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    mounts = root / "sys/fs/cgroup"
    files = []
    for entry in entries:
        _hierarchy, controllers, group = entry.split(":", 2)
        inside = group.lstrip("/")
        if not controllers:
            files.append((mounts / inside / "memory.events", "oom_kill"))
        elif "memory" in controllers.split(","):
            files.append((mounts / "memory" / inside / "memory.oom_control", "oom_kill"))
    return files


def _counter(path: Path, key: str) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(" ")
        if name == key and value.strip().isdigit():
            return int(value)
    return None
