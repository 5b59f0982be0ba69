"""Remembering the best epoch, and noticing when there will not be a better one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from modelyard.v1.training_spec_pb2 import EarlyStopping


class BestEpoch:
    """The best validation loss seen; with early stopping also the weights that gave it."""

    def __init__(self, stopping: EarlyStopping | None) -> None:
        self._stopping = stopping
        self.loss = math.inf
        self.epoch = 0
        self._weights: dict[str, Tensor] | None = None
        # What the next improvement is measured against: a slow creep below min_delta an epoch adds up in time.
        self._mark_loss = math.inf
        self._mark_epoch = 0

    def observe(self, epoch: int, validation_loss: float, network: nn.Module) -> None:
        """Takes in the loss after `epoch` (from 1)."""
        if validation_loss < self.loss:
            self.loss, self.epoch = validation_loss, epoch
            if self._stopping is not None:
                self._weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
        min_delta = self._stopping.min_delta if self._stopping is not None else 0.0
        if validation_loss < self._mark_loss - min_delta:
            self._mark_loss, self._mark_epoch = validation_loss, epoch

    def should_stop(self, epoch: int) -> bool:
        """Whether `patience` epochs have passed without an improvement."""
        return self._stopping is not None and epoch - self._mark_epoch >= self._stopping.patience

    def reinstate(self, network: nn.Module) -> None:
        """Goes back to the best weights; without early stopping the last ones stay."""
        if self._weights is not None:
            network.load_state_dict(self._weights)

    def numbers(self) -> dict[str, float | int | None]:
        """All but the weights, for a checkpoint; None stands for infinite."""
        return {
            "loss": _or_none(self.loss),
            "epoch": self.epoch,
            "mark_loss": _or_none(self._mark_loss),
            "mark_epoch": self._mark_epoch,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The best weights by name, for a checkpoint; empty if there are none yet, or none are kept."""
        return self._weights or {}

    def restore(self, numbers: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
        """Puts back what `numbers` and `tensors` gave; KeyError if something is missing."""
        self.loss, self.epoch = _or_infinite(numbers["loss"]), numbers["epoch"]
        self._mark_loss, self._mark_epoch = _or_infinite(numbers["mark_loss"]), numbers["mark_epoch"]
        self._weights = tensors or None


def _or_none(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None


def _or_infinite(loss: float | None) -> float:
    return math.inf if loss is None else loss
