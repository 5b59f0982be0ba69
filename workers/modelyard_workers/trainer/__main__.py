"""The trainer as a program. Nothing heavy is imported before the parent has heard that work began."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from modelyard.v1.training_job_pb2 import TrainingJob

from .assignment import Assignment
from .stopping import Stopped, StopRequest, stop_with_parent
from .update_stream import UpdateStream

STOPPED = 143
"""What a shell calls a process that SIGTERM ended: 128 + 15."""


def main() -> int:
    """Runs one job; answers the exit code."""
    parser = argparse.ArgumentParser(prog="modelyard_workers.trainer", description="Trains one job.")
    parser.add_argument("--workdir", type=Path, required=True, help="folder with job.json, dataset.json and dataset")
    parser.add_argument("--events-fd", type=int, required=True, help="file descriptor that updates are written to")
    arguments = parser.parse_args()
    stop = StopRequest.by_signal()
    stop_with_parent()
    # cuBLAS is deterministic only with a fixed workspace, and reads this when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        with UpdateStream(arguments.events_fd) as updates:
            updates.state(TrainingJob.STATE_PREPARING)
            from .run import run_job  # takes seconds: torch

            run_job(Assignment(arguments.workdir), updates, stop)
    except Stopped:
        return STOPPED
    except BrokenPipeError:
        # Nobody reads any more, standard output neither: leave without the flush of it that would fail again.
        os._exit(STOPPED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
