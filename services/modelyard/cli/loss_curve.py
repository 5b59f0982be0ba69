"""The losses of a job over its steps, in constant memory."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple

from modelyard.v1.training_job_pb2 import TrainingProgress

MAX_POINTS = 2_000
"""More than a terminal has columns for; when it is reached, every second point goes."""


class LossPoint(NamedTuple):
    """The losses at one place of a training."""

    place: float
    """Optimiser steps done; epochs, for a trainer that does not count steps."""
    epoch: int
    training: float
    validation: float


class LossCurve:
    """Points by place. A job that goes on from a checkpoint draws its line on from there."""

    def __init__(self) -> None:
        self._points: list[LossPoint] = []

    def __len__(self) -> int:
        return len(self._points)

    def add(self, progress: TrainingProgress) -> None:
        """Takes the losses of one progress in, if it has any: before the end of the first epoch it has none."""
        if not progress.epoch:
            return
        place = float(progress.step or progress.epoch)
        # An attempt that began again, from a checkpoint or from the beginning, draws over what was behind it.
        del self._points[bisect_left(self._points, place, key=lambda point: point.place) :]
        self._points.append(LossPoint(place, progress.epoch, progress.training_loss, progress.validation_loss))
        if len(self) > MAX_POINTS:
            self._points = self._points[::-2][::-1]  # from the end, so that the newest one stays

    @property
    def epochs(self) -> tuple[int, int]:
        """The first and the last one; only if there is a point."""
        return self._points[0].epoch, self._points[-1].epoch

    def lines(self) -> dict[str, list[tuple[float, float]]]:
        """The points of each loss as (place, loss), without those that are no number; no loss that is always 0."""
        found = {
            "training": [(point.place, point.training) for point in self._points],
            "validation": [(point.place, point.validation) for point in self._points],
        }
        return {
            name: [(place, loss) for place, loss in line if math.isfinite(loss)]
            for name, line in found.items()
            if any(loss for _, loss in line)
        }
