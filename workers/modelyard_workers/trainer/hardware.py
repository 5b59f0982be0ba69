"""What the trainer computes on: two environment variables (no pydantic, whose import would delay the first step).

`MODELYARD_TRAINER_DEVICE`: a device of PyTorch, as in `cpu` or `cuda:1`. Default: CUDA if there is any, else the CPU.
`MODELYARD_TRAINER_THREADS`: threads of PyTorch on the CPU. Default: one for small networks, else PyTorch's own choice.
"""

from __future__ import annotations

import os
from math import prod

import torch

from modelyard.training import NetworkPlan

PARALLEL_MULTIPLICATIONS = 20_000_000
"""A step with fewer is not worth a second thread: waiting for each other costs more than the threads save, and on a
machine that is busy otherwise, tens of times more."""


def choose_device() -> torch.device:
    """The device to train on, set up so that the same spec and data give the same weights on it."""
    # By this name, because torch.use_deterministic_algorithms imports the compiler: seconds before the first step.
    torch.set_deterministic_debug_mode("error")
    named = os.environ.get("MODELYARD_TRAINER_DEVICE")
    return torch.device(named or ("cuda" if torch.cuda.is_available() else "cpu"))


def choose_threads(plan: NetworkPlan, batch_rows: int) -> None:
    """Sets how many threads PyTorch uses for steps of so many rows."""
    named = os.environ.get("MODELYARD_TRAINER_THREADS")
    if named:
        torch.set_num_threads(int(named))
    elif multiplications(plan) * batch_rows < PARALLEL_MULTIPLICATIONS:
        torch.set_num_threads(1)


def multiplications(plan: NetworkPlan) -> int:
    """Of one row's way through the network: each parameter once, those of a convolution once at every position."""
    return sum(layer.parameter_count * prod(layer.output_shape[1:]) for layer in plan.layers)
