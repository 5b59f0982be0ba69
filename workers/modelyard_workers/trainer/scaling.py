"""Scaling as part of the graph: clients send raw values and get answers in the target's own unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modelyard.v1 import training_spec_pb2 as pb

_CHUNK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Statistics:
    """Where values lie. float64, of one row's shape, or scalars where they are common to all elements."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    """Standard deviation (of the population); 1 for what never varies or varies less than float32 can tell from 0."""


def statistics(values: NDArray[np.float32], *, common: bool = False) -> Statistics:
    """Mean and standard deviation of `values` [rows, ...] over the rows; `common`: over all elements of all rows.

    Summed in float64, the squares around the mean and in chunks: no second copy of the data in float64.
    """
    axes = tuple(range(values.ndim)) if common else (0,)
    mean = values.mean(axis=axes, dtype=np.float64)
    squares = np.zeros_like(mean)
    for start in range(0, len(values), _CHUNK_ROWS):
        squares += ((values[start : start + _CHUNK_ROWS] - mean) ** 2).sum(axis=axes)
    count = values.size if common else len(values)
    deviation = np.sqrt(squares / count)
    # Rounding gives even a constant a tiny deviation; dividing by it would blow the rounding error up.
    varies = (values.max(axis=axes) > values.min(axis=axes)) & (deviation.astype(np.float32) > 0)
    return Statistics(np.asarray(mean), np.where(varies, deviation, 1.0))


class Standardize(nn.Module):
    """`(x - mean) / scale`."""

    mean: Tensor
    scale: Tensor

    def __init__(self, found: Statistics) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(found.mean.astype(np.float32)))
        self.register_buffer("scale", torch.from_numpy(found.scale.astype(np.float32)))

    def forward(self, values: Tensor) -> Tensor:
        """Raw to standard units; any batch."""
        return (values - self.mean) / self.scale


class Restore(nn.Module):
    """`y * scale + mean`: the way back."""

    mean: Tensor
    scale: Tensor

    def __init__(self, found: Statistics) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(found.mean.astype(np.float32)))
        self.register_buffer("scale", torch.from_numpy(found.scale.astype(np.float32)))

    def forward(self, values: Tensor) -> Tensor:
        """Standard to the target's own unit; any batch."""
        return values * self.scale + self.mean


def input_scaling(scaling: pb.Scaling.ValueType, training_features: NDArray[np.float32]) -> nn.Module:
    """The module that raw inputs pass first, with statistics of the training rows."""
    if scaling == pb.SCALING_STANDARDIZE:
        return Standardize(statistics(training_features))
    if scaling == pb.SCALING_STANDARDIZE_GLOBAL:
        return Standardize(statistics(training_features, common=True))
    return nn.Identity()
