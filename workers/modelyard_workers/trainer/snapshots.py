"""A training as it is at a step boundary: taken from it, and put back."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .checkpoint_file import Checkpoint, CheckpointUnusable
from .failures import is_out_of_memory
from .tensor_sets import fill, part, under

if TYPE_CHECKING:
    from .loop import TrainingState

_DECIDES_BITS = ("device", "cpu", "torch", "cuda")
"""Of the environment: what may add the same numbers up in another order."""


def take_snapshot(state: TrainingState) -> Checkpoint:
    """The state at a step boundary, copied to the CPU's memory; the training may go on at once."""
    device = state.loss_sum.device
    tensors = {
        **under("network", state.network.state_dict()),
        **under("optimizer", state.optimizer.tensors()),
        **under("best", state.best.tensors()),
        "loss_sum": state.loss_sum,
        "random.batches": state.batches.generator_state(),
        "random.cpu": torch.get_rng_state(),
    }
    if device.type == "cuda":
        tensors |= under("random.cuda", {str(at): drawn for at, drawn in enumerate(torch.cuda.get_rng_state_all())})
    document = {
        "epoch": state.epoch,
        "step": state.step,
        "batch": state.batches.position,
        "training_loss": state.training_loss,
        "validation_loss": state.validation_loss,
        "best": state.best.numbers(),
        "threads": torch.get_num_threads(),
        "environment": environment(device),
    }
    return Checkpoint({name: _copied(tensor) for name, tensor in tensors.items()}, document)


def restore_snapshot(state: TrainingState, checkpoint: Checkpoint) -> None:
    """Puts the checkpoint into a state that has just been built for the same spec and data.

    PyTorch's generators and number of threads too. Raises CheckpointUnusable if it does not fit; the state is then of
    no use any more.
    """
    try:
        _restore(state, checkpoint.tensors, checkpoint.document)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise CheckpointUnusable(f"it does not fit the network: {type(error).__name__}: {error}") from error


def environment(device: torch.device) -> dict[str, str]:
    """What the training runs on and with."""
    on_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_cuda else device.type,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "" if on_cuda else "",
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def differences(checkpoint: Checkpoint, device: torch.device) -> list[str]:
    """What of the environment is another one, as in `torch 2.12.0, now 2.13.0`, and may change the last bits."""
    then, now = checkpoint.document["environment"], environment(device)
    return [f"{name} {then[name]}, now {now[name]}" for name in _DECIDES_BITS if then[name] != now[name]]


def _restore(state: TrainingState, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    fill(state.network.state_dict(), part("network", tensors))
    state.optimizer.restore(part("optimizer", tensors))
    state.best.restore(document["best"], _best_weights(state, part("best", tensors)))
    fill({"loss_sum": state.loss_sum}, {"loss_sum": tensors["loss_sum"]})
    state.batches.restore(tensors["random.batches"], document["batch"])
    state.epoch, state.step = document["epoch"], document["step"]
    state.training_loss, state.validation_loss = document["training_loss"], document["validation_loss"]
    torch.set_rng_state(tensors["random.cpu"])
    if state.loss_sum.device.type == "cuda":
        for at, drawn in part("random.cuda", tensors).items():
            if int(at) < torch.cuda.device_count():
                torch.cuda.set_rng_state(drawn, int(at))
    # Several threads add up in another order than one.
    torch.set_num_threads(document["threads"])


def _best_weights(state: TrainingState, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the network's device; empty if there are none."""
    if not tensors:
        return {}
    weights = {name: torch.empty_like(value) for name, value in state.network.state_dict().items()}
    fill(weights, tensors)
    return weights


def _copied(tensor: Tensor) -> Tensor:
    """A copy in the CPU's memory that shares nothing."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
