"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .early_stopping import BestEpoch
from .failures import Diverged
from .losses import Loss
from .optimizers import Optimizer
from .progress import ProgressMeter
from .stopping import StopRequest

EVALUATION_ROWS = 4096
"""Rows per forward pass when nothing is learned from them."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One part of the data, on the training device."""

    features: Tensor
    """float32 [rows, *input_shape], scaled."""
    targets: Tensor
    """float32 [rows, outputs], standardised if the spec says so; or int64 [rows], classes."""

    def __len__(self) -> int:
        return len(self.features)


class ShuffledBatches:
    """The loader and its position: iterating goes on where it was and ends with the epoch.

    Every epoch has its own order, drawn from a generator of its own. The batches of an epoch differ by at most one row:
    ten rows in batches of at most four are 4 + 3 + 3, not 4 + 4 + 2, so no step is dominated by a few left-over rows.
    """

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        self._rows = rows
        self.per_epoch = math.ceil(rows / batch_size)
        if batch_size > 1 and rows // self.per_epoch == 1 < rows:
            self.per_epoch -= 1  # batch normalisation has no spread to divide by in a batch of one
        self._generator = torch.Generator().manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64)
        self._position = 0

    def __iter__(self) -> Iterator[Tensor]:
        """Indices of the rows of each batch, int64 [batch]."""
        if self._position == 0:
            self._order = torch.randperm(self._rows, generator=self._generator)
        batches = self._order.tensor_split(self.per_epoch)
        while self._position < self.per_epoch:
            self._position += 1
            yield batches[self._position - 1]
        self._position = 0


@dataclass(slots=True)
class TrainingState:
    """Everything that a training is at a step boundary, besides PyTorch's global generator (dropout draws from it)."""

    network: nn.Module
    optimizer: Optimizer
    batches: ShuffledBatches
    best: BestEpoch
    epoch: int = 0
    """Epochs done."""
    step: int = 0
    """Optimiser steps done, over all epochs."""
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    """Sum of the rows' losses in the epoch that runs."""
    training_loss: float = 0.0
    """Mean over the rows of the last epoch done."""
    validation_loss: float = 0.0
    """After the last epoch done."""


def train(
    state: TrainingState,
    training: Rows,
    validation: Rows,
    loss_of: Loss,
    max_epochs: int,
    meter: ProgressMeter,
    stop: StopRequest,
) -> None:
    """Trains until `max_epochs` or early stopping; leaves the best weights in `state.network` if it stops early.

    Raises Diverged when a loss is not finite and Stopped at the first step boundary after a request.
    """
    while state.epoch < max_epochs and not state.best.should_stop(state.epoch):
        state.network.train()
        for rows in state.batches:  # [batch]
            answers = state.network(training.features[rows])  # [batch, outputs]
            loss = loss_of(answers, training.targets[rows])  # []
            loss.backward()  # type: ignore[no-untyped-call]
            state.optimizer.step()
            state.optimizer.zero_grad()

            state.loss_sum += loss.detach() * len(rows)
            state.step += 1
            if meter.step_done(state, len(rows)):
                # Now and then, because looking at a number makes an accelerator wait.
                _finite(state.loss_sum.item(), "training", state.epoch + 1)
            stop.check()

        state.epoch += 1
        state.training_loss = _finite(state.loss_sum.item() / len(training), "training", state.epoch)
        state.loss_sum.zero_()
        state.validation_loss = _finite(mean_loss(state.network, validation, loss_of), "validation", state.epoch)
        state.best.observe(state.epoch, state.validation_loss, state.network)

    meter.finished(state)
    state.best.restore(state.network)


@torch.no_grad()
def mean_loss(network: nn.Module, rows: Rows, loss_of: Loss) -> float:
    """The mean loss over `rows` with dropout off and batch normalisation on its running statistics."""
    network.eval()
    total = 0.0
    for start in range(0, len(rows), EVALUATION_ROWS):
        answers = network(rows.features[start : start + EVALUATION_ROWS])
        total += loss_of(answers, rows.targets[start : start + EVALUATION_ROWS]).item() * len(answers)
    return total / len(rows)


def _finite(loss: float, kind: str, epoch: int) -> float:
    if not math.isfinite(loss):
        raise Diverged(f"the {kind} loss of epoch {epoch} is {loss}; try a smaller learning rate")
    return loss
