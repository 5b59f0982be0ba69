"""Becomes another program, after arranging how it is to be treated. Standard library only: it starts in ~15 ms.

    python -I -S launcher.py PROGRAM [ARGUMENT …]

The worker cannot do this between fork and exec itself: it has threads by then (gRPC's), and running Python in the
forked copy of a threaded process may deadlock.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path

_NOT_FOUND = 127


def main(command: list[str]) -> None:
    """Does not return: the process becomes the program, or ends."""
    _go_first_when_memory_runs_out()
    _default_signals()
    try:
        os.execvp(command[0], command)  # noqa: S606 - the command comes from the worker's settings, and no shell is wanted
    except OSError as error:
        sys.stderr.write(f"cannot start the trainer {command[0]!r}: {error}\n")
        sys.exit(_NOT_FOUND)


def _go_first_when_memory_runs_out() -> None:
    """The kernel is to kill the trainer, which can be retried, rather than the worker that would report it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _default_signals() -> None:
    """Celery's pool processes ignore SIGTERM and SIGINT, and what is ignored stays so across exec."""
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


if __name__ == "__main__":
    main(sys.argv[1:])
