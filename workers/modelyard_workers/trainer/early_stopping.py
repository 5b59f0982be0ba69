"""Remembering the best epoch, and noticing when there will not be a better one."""

from __future__ import annotations

import math

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

    def restore(self, network: nn.Module) -> None:
        """Goes back to the best weights; without early stopping the last ones stay."""
        if self._weights is not None:
            network.load_state_dict(self._weights)
