"""What the parent is told, one line of proto-JSON per update."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from types import TracebackType
from typing import Self

from google.protobuf.json_format import MessageToDict

from modelyard.v1.training_job_pb2 import Checkpoint, Evaluation, TrainingJob, TrainingProgress
from modelyard.v1.worker_service_pb2 import TrainingUpdate


class UpdateStream:
    """Writes updates to a file descriptor, from any thread. Each method raises BrokenPipeError if nobody reads."""

    def __init__(self, descriptor: int) -> None:
        # Not for grandchildren: the parent sees the end of the stream when this process ends.
        os.set_inheritable(descriptor, False)
        self._file = os.fdopen(descriptor, "wb")
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing writes what is left; if the parent is gone there is nobody to write it to.
        with contextlib.suppress(BrokenPipeError):
            self._file.close()

    def state(self, state: TrainingJob.State.ValueType) -> None:
        """The trainer entered another state."""
        self._write(TrainingUpdate(state=state))

    def progress(self, progress: TrainingProgress) -> None:
        """The training moved on."""
        self._write(TrainingUpdate(progress=progress))

    def evaluation(self, evaluation: Evaluation) -> None:
        """The result was scored."""
        self._write(TrainingUpdate(evaluation=evaluation))

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """A checkpoint is on the disk."""
        self._write(TrainingUpdate(checkpoint=checkpoint))

    def _write(self, update: TrainingUpdate) -> None:
        line = json.dumps(MessageToDict(update), separators=(",", ":"))
        with self._lock:
            self._file.write(line.encode() + b"\n")
            self._file.flush()


def say(line: str) -> None:
    """Prints a line for the people who follow the job; the parent takes it from standard output."""
    print(line, flush=True)
