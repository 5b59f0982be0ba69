"""Telling how far a training is: a few times a second, with speed and the time that remains."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from modelyard.v1.training_job_pb2 import TrainingProgress

if TYPE_CHECKING:
    from .loop import TrainingState

INTERVAL_S = 0.25
WINDOW = 20
"""Reports that the speed is measured over: the last five seconds."""


class ProgressMeter:
    """Counts rows and reports, at most every `INTERVAL_S` and once at the end."""

    def __init__(
        self,
        report: Callable[[TrainingProgress], None],
        *,
        max_epochs: int,
        rows_per_epoch: int,
        rows_before: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rows_before`: trained on by earlier attempts; they count as done, and not for the speed."""
        self._report = report
        self._max_epochs = max_epochs
        self._rows_per_epoch = rows_per_epoch
        self._clock = clock
        self._rows = rows_before
        self._next = clock()
        self._window = deque([(clock(), rows_before)], maxlen=WINDOW)

    def step_done(self, state: TrainingState, rows: int) -> bool:
        """A step on so many rows is done; reports if it is time, and answers whether it was."""
        self._rows += rows
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + INTERVAL_S
        self._report_at(now, state)
        return True

    def finished(self, state: TrainingState) -> None:
        """The last epoch is done; reports in any case."""
        self._report_at(self._clock(), state)

    def _report_at(self, now: float, state: TrainingState) -> None:
        self._window.append((now, self._rows))
        since, rows = self._window[0]
        speed = (self._rows - rows) / (now - since) if now > since else 0.0
        progress = TrainingProgress(
            epoch=state.epoch,
            max_epochs=self._max_epochs,
            step=state.step,
            training_loss=state.training_loss,
            validation_loss=state.validation_loss,
            best_validation_loss=state.best.loss if math.isfinite(state.best.loss) else 0.0,
            best_epoch=state.best.epoch,
            rows_per_second=speed,
        )
        if speed and state.epoch:
            remaining_rows = max(0, self._max_epochs * self._rows_per_epoch - self._rows)
            progress.remaining.CopyFrom(Duration())
            progress.remaining.FromNanoseconds(round(remaining_rows / speed * 1e9))
        self._report(progress)
