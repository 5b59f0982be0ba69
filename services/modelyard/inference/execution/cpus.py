"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")


def available_cpus(quota_file: Path = _QUOTA_FILE) -> int:
    """The processors it may run on, or fewer if its container's share of time (cgroup v2) is less. At least 1."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = quota_file.read_text().split()
    except OSError:
        return allowed
    if quota == "max":
        return allowed
    return max(1, min(allowed, math.ceil(int(quota) / int(period))))
