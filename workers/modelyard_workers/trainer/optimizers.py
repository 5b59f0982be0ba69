"""The update rules, by PyTorch's functional forms of them.

Why not the classes in `torch.optim`: the first one constructed imports torch._dynamo, two seconds before the first step
that a small job does not have. The functions are the same arithmetic: a test holds them equal to the classes, bit for
bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from modelyard.v1 import training_spec_pb2 as pb

from .tensor_sets import fill


class Optimizer(Protocol):
    """Moves parameters by their gradients."""

    def step(self) -> None:
        """One update of every parameter from its `.grad`."""

    def zero_grad(self) -> None:
        """Forgets the gradients."""

    def tensors(self) -> dict[str, Tensor]:
        """What it remembers from step to step, by name."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what `tensors` gave after at least one step; ValueError if it does not fit the parameters."""


class _Parameters:
    """The trained tensors and their gradients."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.parameters = list(parameters)

    def gradients(self) -> list[Tensor]:
        """One for each parameter; all of them take part in every step."""
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for parameter in self.parameters:
            parameter.grad = None


class GradientStep(_Parameters):
    """Steps against the gradient, plain or with (Nesterov) momentum, be it of a batch or of all rows."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        learning_rate: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
    ) -> None:
        super().__init__(parameters)
        self.velocities: list[Tensor | None] = [None] * len(self.parameters)
        self._settings: dict[str, Any] = {
            "lr": learning_rate,
            "momentum": momentum,
            "dampening": 0.0,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "maximize": False,
        }

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter from its `.grad`."""
        sgd(self.parameters, self.gradients(), self.velocities, fused=True, **self._settings)

    def tensors(self) -> dict[str, Tensor]:
        """The velocities; none without momentum, or before the first step."""
        return {str(at): velocity for at, velocity in enumerate(self.velocities) if velocity is not None}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over velocities."""
        if self._settings["momentum"]:
            self.velocities = [torch.zeros_like(parameter) for parameter in self.parameters]
        fill(self.tensors(), tensors)


class AdamStep(_Parameters):
    """Adam, or with `decoupled` weight decay AdamW."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        learning_rate: float,
        settings: pb.Adam | pb.AdamW,
        weight_decay: float,
        decoupled: bool,
    ) -> None:
        super().__init__(parameters)
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.steps = [torch.zeros((), device=parameter.device) for parameter in self.parameters]
        self._rule = adamw if decoupled else adam
        self._settings: dict[str, Any] = {
            "lr": learning_rate,
            "beta1": settings.beta1,
            "beta2": settings.beta2,
            "eps": settings.epsilon,
            "weight_decay": weight_decay,
            "amsgrad": False,
            "maximize": False,
        }

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter from its `.grad`."""
        gradients = self.gradients()
        self._rule(self.parameters, gradients, self.means, self.squares, [], self.steps, fused=True, **self._settings)

    def tensors(self) -> dict[str, Tensor]:
        """Both means of every parameter, and its number of steps."""
        kept = {"mean": self.means, "square": self.squares, "steps": self.steps}
        return {f"{name}.{at}": tensor for name, tensors in kept.items() for at, tensor in enumerate(tensors)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over means and numbers of steps."""
        fill(self.tensors(), tensors)


def build_optimizer(optimizer: pb.Optimizer, parameters: Iterable[Tensor]) -> Optimizer:
    """The spec's optimiser over `parameters`."""
    rate, decay = optimizer.learning_rate, optimizer.weight_decay
    kind = optimizer.WhichOneof("kind")
    if kind in ("adam", "adamw"):
        settings = optimizer.adam if kind == "adam" else optimizer.adamw
        return AdamStep(
            parameters, learning_rate=rate, settings=settings, weight_decay=decay, decoupled=kind == "adamw"
        )
    momentum = {"momentum": optimizer.momentum.momentum, "nesterov": optimizer.nesterov.momentum}.get(kind or "", 0.0)
    return GradientStep(
        parameters, learning_rate=rate, momentum=momentum, nesterov=kind == "nesterov", weight_decay=decay
    )
