"""The losses: what training minimises, as the mean over a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor
from torch.nn import functional

from modelyard.v1 import training_spec_pb2 as pb

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(answers [batch, outputs], targets) to a scalar; targets are [batch, outputs], or classes [batch]."""

LOSSES: dict[int, Loss] = {
    pb.LOSS_MEAN_SQUARED_ERROR: functional.mse_loss,
    pb.LOSS_MEAN_ABSOLUTE_ERROR: functional.l1_loss,
    pb.LOSS_HUBER: functional.huber_loss,  # delta 1, as the API says
    pb.LOSS_CROSS_ENTROPY: functional.cross_entropy,
}
