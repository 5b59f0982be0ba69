"""Ends a program when the program that started it ends, however that happens: nothing is left running after kill -9.

Linux tells a process that asked for it when its parent died (prctl(2), PR_SET_PDEATHSIG). Two ways to ask:

* `leashed([...])` is a command line for any program: this file runs first, asks, and becomes that program.
* `die_with_parent()` asks for the calling process.

The kernel watches the *thread* that started the child: start leashed programs from a thread that lives as long as its
process. Standard library only, and no import of its own package: it is run as a file, before any site packages.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def leashed(command: Sequence[str]) -> list[str]:
    """`command` with a leash to the calling process. Keeps process id, standard streams and environment."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def die_with_parent(parent: int | None = None) -> None:
    """Has the calling process killed when its parent ends. `parent`: who that should be, to notice if it already ended.

    Raises OSError if the kernel refuses, ProcessLookupError if the parent is gone.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if parent is not None and os.getppid() != parent:
        raise ProcessLookupError(f"the parent {parent} ended before its child began")


def _main() -> None:
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell is wanted; the command is the caller's own


if __name__ == "__main__":
    _main()
