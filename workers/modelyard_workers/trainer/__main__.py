"""The trainer as a program.

With `--workdir` it begins at once, and nothing heavy is imported before the parent has heard that work began. Without,
it imports everything first and then waits for the folder's path, one line on standard input: the worker starts it ahead
of the next job, since importing torch takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from modelyard.v1.training_job_pb2 import TrainingJob

from .assignment import Assignment
from .stopping import Stopped, StopRequest
from .update_stream import UpdateStream

STOPPED = 143
"""What a shell calls a process that SIGTERM ended: 128 + 15."""


def main() -> int:
    """Runs one job; answers the exit code."""
    parser = argparse.ArgumentParser(prog="modelyard_workers.trainer", description="Trains one job.")
    parser.add_argument(
        "--workdir", type=Path, help="folder with job.json, dataset.json and dataset; else read from stdin"
    )
    parser.add_argument("--events-fd", type=int, required=True, help="file descriptor that updates are written to")
    arguments = parser.parse_args()
    workdir = arguments.workdir or _await_folder()
    if workdir is None:
        return 0
    stop = StopRequest.by_signal()
    # cuBLAS is deterministic only with a fixed workspace, and reads this when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        with UpdateStream(arguments.events_fd) as updates:
            updates.state(TrainingJob.STATE_PREPARING)
            from .run import run_job  # takes seconds: torch

            run_job(Assignment(workdir), updates, stop)
    except Stopped:
        return STOPPED
    except BrokenPipeError:
        # Nobody reads any more, standard output neither: leave without the flush of it that would fail again.
        os._exit(STOPPED)
    return 0


def _await_folder() -> Path | None:
    """The folder to work in, when there is one; None if the worker ends without a job for us."""
    from . import export, run  # noqa: F401 - what takes seconds is done while nobody waits

    for _ in export.preload():
        if select.select([sys.stdin], [], [], 0)[0]:
            break
    line = sys.stdin.readline().rstrip("\n")
    if not line:
        return None
    folder = Path(line)
    os.chdir(folder)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
    return folder


def _leave(code: int) -> NoReturn:
    """Ends the process without taking the interpreter apart, which with torch in it costs a second of computing.

    The parent waits for the end: a cancel, a pause and a result are told of that much sooner. Everything that must
    outlive the trainer is on the disk or in the parent's pipes by now.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
