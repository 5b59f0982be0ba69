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
from .saving import CheckpointSaver
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
    """The loader and its position: iterating goes on where it was and ends with the epoch's last batch.

    Every epoch has its own order, drawn from a generator of its own. The batches of an epoch differ by at most one row:
    ten rows in batches of at most four are 4 + 3 + 3, not 4 + 4 + 2, so no step is dominated by a few left-over rows.
    """

    def __init__(self, rows: int, batch_size: int, seed: int, device: torch.device | None = None) -> None:
        """`device`: where the batches are wanted; default the CPU. The order is the same for all."""
        self._rows = rows
        self._device = device or torch.device("cpu")
        self.per_epoch = math.ceil(rows / batch_size)
        if batch_size > 1 and rows // self.per_epoch == 1 < rows:
            self.per_epoch -= 1  # batch normalisation has no spread to divide by in a batch of one
        self._generator = torch.Generator().manual_seed(seed)
        self._before_order = self._generator.get_state()
        self._order = torch.empty(0, dtype=torch.int64, device=self._device)
        self.position = 0
        """Batches of the running epoch that were given out."""

    def __iter__(self) -> Iterator[Tensor]:
        """Indices of the rows of each batch, int64 [batch]."""
        if self.position == 0:
            self._draw_order()
        batches = self._order.tensor_split(self.per_epoch)
        while self.position < self.per_epoch:
            self.position += 1
            yield batches[self.position - 1]

    def end_epoch(self) -> None:
        """Iterating will begin a new epoch. Until then there is nothing more to iterate over."""
        self.position = 0

    def rows_given_out(self) -> int:
        """Rows in the batches of the running epoch so far."""
        shorter, longer = divmod(self._rows, self.per_epoch)
        return self.position * shorter + min(self.position, longer)

    def generator_state(self) -> Tensor:
        """The generator as it was before it drew the running epoch's order (uint8), or as it is between two epochs.

        With `position` it says all: the order itself is as long as the data.
        """
        return self._before_order if self.position else self._generator.get_state()

    def restore(self, generator_state: Tensor, position: int) -> None:
        """Goes to where `generator_state` and `position` were taken."""
        self._generator.set_state(generator_state)
        if position:
            self._draw_order()
        self.position = position

    def _draw_order(self) -> None:
        self._before_order = self._generator.get_state()
        # Once an epoch to the device, instead of making it wait for indices in every step.
        self._order = torch.randperm(self._rows, generator=self._generator).to(self._device)


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

    def end_epoch(self, training_loss: float, validation_loss: float) -> None:
        """One more epoch is done."""
        self.epoch += 1
        self.batches.end_epoch()
        self.loss_sum.zero_()
        self.training_loss, self.validation_loss = training_loss, validation_loss
        self.best.observe(self.epoch, validation_loss, self.network)


def train(
    state: TrainingState,
    training: Rows,
    validation: Rows,
    loss_of: Loss,
    max_epochs: int,
    meter: ProgressMeter,
    saver: CheckpointSaver,
    stop: StopRequest,
) -> None:
    """Trains until `max_epochs` or early stopping; leaves the best weights in `state.network` if it stops early.

    Raises Diverged when a loss is not finite and Stopped soon after a request. Then, as at every step boundary, `state`
    is all that is needed to go on.
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
            saver.step_done(state)
            stop.check()

        # Until both are known the state stays as it was after the last step: a stop may come in between.
        training_loss = _finite(state.loss_sum.item() / len(training), "training", state.epoch + 1)
        validation_loss = _finite(mean_loss(state.network, validation, loss_of, stop), "validation", state.epoch + 1)
        state.end_epoch(training_loss, validation_loss)

    meter.finished(state)
    saver.finished(state)
    state.best.reinstate(state.network)


@torch.no_grad()
def mean_loss(network: nn.Module, rows: Rows, loss_of: Loss, stop: StopRequest) -> float:
    """The mean loss over `rows` with dropout off and batch normalisation on its running statistics.

    Raises Stopped soon after a request.
    """
    network.eval()
    total = 0.0
    for start in range(0, len(rows), EVALUATION_ROWS):
        answers = network(rows.features[start : start + EVALUATION_ROWS])
        total += loss_of(answers, rows.targets[start : start + EVALUATION_ROWS]).item() * len(answers)
        stop.check()
    return total / len(rows)


def _finite(loss: float, kind: str, epoch: int) -> float:
    if not math.isfinite(loss):
        raise Diverged(f"the {kind} loss of epoch {epoch} is {loss}; try a smaller learning rate")
    return loss
