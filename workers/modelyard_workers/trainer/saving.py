"""Making checkpoints while the training goes on, seldom enough to cost next to nothing."""

from __future__ import annotations

import contextlib
import math
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.v1.training_job_pb2 import Checkpoint as CheckpointMessage

from . import checkpoint_file
from .checkpoint_file import Checkpoint, Origin
from .failures import is_out_of_memory
from .snapshots import take_snapshot
from .update_stream import say

if TYPE_CHECKING:
    from .loop import TrainingState

COST_RATIO = 100
"""Of the time between two checkpoints to what one takes from the training: less than one per cent."""
KEPT = 2
"""Files: the newest, and the one that the parent may be reading."""

_NAME = re.compile(r"\d{12}\.safetensors")


class CheckpointSaver:
    """Saves now and then, at most one checkpoint at a time, and tells when it is on the disk.

    The state is copied between two steps; a thread writes the copy. A checkpoint that cannot be written costs a line in
    the log, and the next one is tried in time.
    """

    def __init__(
        self,
        folder: Path,
        origin: Origin,
        tell: Callable[[CheckpointMessage], None],
        *,
        interval_s: float,
        saved_step: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`interval_s` 0: only when the training is stopped. `saved_step`: the step that the training goes on from."""
        self._folder = folder
        self._origin = origin
        self._tell = tell
        self._interval_s = interval_s or math.inf
        self._saved_step = saved_step
        self._clock = clock
        self._start = clock()
        self._due = self._start + self._interval_s
        self._writing: threading.Thread | None = None

    def step_done(self, state: TrainingState) -> None:
        """A step is done; starts to save if it is time."""
        if self._clock() >= self._due:
            self._begin(state)

    def finished(self, state: TrainingState) -> None:
        """The training is done; saves if it took longer than the interval: what follows may be interrupted too."""
        if self._clock() - self._start >= self._interval_s:
            self.save(state)

    def save(self, state: TrainingState) -> None:
        """Saves unless this step is saved already; returns when it is on the disk or cannot be."""
        self.wait()
        if state.step > self._saved_step:
            self._begin(state)
            self.wait()

    def wait(self) -> None:
        """Returns when nothing is being written."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None

    def _begin(self, state: TrainingState) -> None:
        begun = self._clock()
        self._due = math.inf  # until this one is written
        try:
            snapshot = take_snapshot(state)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._postpone(begun, 0.0)
            _say(f"no checkpoint of step {state.step:,}: memory for a copy is short; the training goes on")
            return
        held_up = self._clock() - begun
        message = CheckpointMessage(epoch=state.epoch, step=state.step)
        self._writing = threading.Thread(
            target=self._write, args=(snapshot, message, begun, held_up), name="checkpoint"
        )
        self._writing.start()

    def _write(self, snapshot: Checkpoint, message: CheckpointMessage, begun: float, held_up: float) -> None:
        path = self._folder / f"{message.step:012d}.safetensors"
        try:
            self._folder.mkdir(exist_ok=True)
            message.size_bytes = checkpoint_file.write_checkpoint(path, self._origin, snapshot)
            self._saved_step = message.step
            self._remove_old()
        except OSError as error:  # a full disk, a folder that may not be written to
            _say(f"no checkpoint of step {message.step:,}: {error}; the training goes on")
        else:
            with contextlib.suppress(BrokenPipeError):  # the training itself will hear that nobody listens
                self._tell(message)
        finally:
            self._postpone(begun, held_up + time.thread_time())

    def _postpone(self, begun: float, cost_s: float) -> None:
        self._due = begun + max(self._interval_s, COST_RATIO * cost_s)

    def _remove_old(self) -> None:
        files = sorted(path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))
        for path in files[:-KEPT]:
            path.unlink(missing_ok=True)


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        say(line)
