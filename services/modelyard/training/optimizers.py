"""The settings of the optimisers: which are allowed, what holds where nothing is given."""

from __future__ import annotations

from modelyard.v1 import training_spec_pb2 as pb

from .fields import Field

DEFAULT_MOMENTUM = 0.9
DEFAULT_BETA1 = 0.9
DEFAULT_BETA2 = 0.999
DEFAULT_EPSILON = 1e-8


def check_optimizer(optimizer: pb.Optimizer, at: Field) -> None:
    """Checks the optimiser and fills in its defaults."""
    at.child("learning_rate").positive(optimizer.learning_rate)
    at.child("weight_decay").not_negative(optimizer.weight_decay)
    kind = optimizer.WhichOneof("kind")
    if kind is None:
        kinds = ", ".join(field.name for field in pb.Optimizer.DESCRIPTOR.oneofs_by_name["kind"].fields)
        at.reject(f"expected exactly one of {kinds}; nothing known was given")
    elif kind == "momentum":
        _check_momentum(optimizer.momentum, at.child("momentum.momentum"))
    elif kind == "nesterov":
        _check_momentum(optimizer.nesterov, at.child("nesterov.momentum"))
    elif kind == "adam":
        _check_adam(optimizer.adam, at.child("adam"))
    elif kind == "adamw":
        _check_adam(optimizer.adamw, at.child("adamw"))


def _check_momentum(settings: pb.Momentum | pb.Nesterov, at: Field) -> None:
    settings.momentum = settings.momentum or DEFAULT_MOMENTUM
    at.fraction(settings.momentum)


def _check_adam(settings: pb.Adam | pb.AdamW, at: Field) -> None:
    settings.beta1 = settings.beta1 or DEFAULT_BETA1
    settings.beta2 = settings.beta2 or DEFAULT_BETA2
    settings.epsilon = settings.epsilon or DEFAULT_EPSILON
    at.child("beta1").fraction(settings.beta1)
    at.child("beta2").fraction(settings.beta2)
    at.child("epsilon").positive(settings.epsilon)
