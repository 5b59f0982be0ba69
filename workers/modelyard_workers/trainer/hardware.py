"""What the trainer computes on. An operator chooses by the variables that CUDA and OpenMP have for it.

`CUDA_VISIBLE_DEVICES`: the accelerators there are; empty for the CPU. `OMP_NUM_THREADS`: threads on the CPU.
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
    """The device to train on, set up so that the same spec and data give the same weights on a CPU.

    An accelerator has operations that cannot promise that; there a warning in the job's log names them.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # By this name, because torch.use_deterministic_algorithms imports the compiler: seconds before the first step.
    torch.set_deterministic_debug_mode("error" if device.type == "cpu" else "warn")
    return device


def choose_threads(plan: NetworkPlan, batch_rows: int) -> None:
    """One thread for small steps, PyTorch's own choice for large ones; what `OMP_NUM_THREADS` says in any case."""
    is_small = multiplications(plan) * batch_rows < PARALLEL_MULTIPLICATIONS
    if is_small and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def multiplications(plan: NetworkPlan) -> int:
    """Of one row's way through the network: each parameter once, those of a convolution once at every position."""
    return sum(layer.parameter_count * prod(layer.output_shape[1:]) for layer in plan.layers)
