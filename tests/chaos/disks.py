"""A worker's disk that can fill up.

Where mounting is allowed each worker has a small file system in memory, seen by this run alone, and full means full:
writing answers ENOSPC. Elsewhere its processes may write no more to any file (RLIMIT_FSIZE): writing answers EFBIG.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

_CLONE_NEWNS = 0x00020000
_BALLAST = "ballast"
_STEP = 1024 * 1024


def own_mounts() -> bool:
    """Gives this process mounts of its own, which vanish with its last descendant; whether that is allowed.

    Call it before there are threads.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True).returncode == 0


class Disk:
    """One worker's."""

    def __init__(self, folder: Path, processes: Callable[[], Sequence[psutil.Process]], *, mount_mib: int) -> None:
        """`processes`: the worker's. `mount_mib`: size of the file system; 0: no mount, files are limited instead."""
        self._folder = folder
        self._processes = processes
        folder.mkdir(parents=True, exist_ok=True)
        self.is_mounted = mount_mib > 0 and _mount(folder, mount_mib)

    def fill(self) -> None:
        """From now on there is no room."""
        if not self.is_mounted:
            self._limit(4096)
            return
        with suppress(OSError), (self._folder / _BALLAST).open("ab", buffering=0) as file:
            for size in (_STEP, 4096):
                self._fill_by(file.write, size)

    @staticmethod
    def _fill_by(write: Callable[[bytes], int], size: int) -> None:
        with suppress(OSError):
            while write(bytes(size)):
                pass

    def free(self) -> None:
        """There is room again."""
        if self.is_mounted:
            (self._folder / _BALLAST).unlink(missing_ok=True)
        else:
            self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        for process in self._processes():
            with suppress(OSError, psutil.Error):
                _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
                soft = hard if size == resource.RLIM_INFINITY else size
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))


def _mount(folder: Path, mebibytes: int) -> bool:
    options = f"size={mebibytes}m,mode=0700,uid={os.geteuid()}"
    command = ["mount", "-t", "tmpfs", "-o", options, "chaos", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
