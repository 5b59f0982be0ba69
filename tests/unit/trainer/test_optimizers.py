"""Our optimisers are PyTorch's, bit for bit; only their start is quicker."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from modelyard.v1 import training_spec_pb2 as pb
from modelyard_workers.trainer.optimizers import build_optimizer

RATE = 0.01
ADAM = {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6}
TORCH_ADAM = {"lr": RATE, "betas": (0.8, 0.95), "eps": 1e-6, "fused": True}
TORCH_SGD = {"lr": RATE, "fused": True}


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(
    ("kind", "reference", "settings"),
    [
        ({"gradient_descent": pb.GradientDescent()}, torch.optim.SGD, TORCH_SGD),
        ({"sgd": pb.Sgd()}, torch.optim.SGD, TORCH_SGD),
        ({"momentum": pb.Momentum(momentum=0.9)}, torch.optim.SGD, TORCH_SGD | {"momentum": 0.9}),
        ({"nesterov": pb.Nesterov(momentum=0.9)}, torch.optim.SGD, TORCH_SGD | {"momentum": 0.9, "nesterov": True}),
        ({"adam": pb.Adam(**ADAM)}, torch.optim.Adam, TORCH_ADAM),
        ({"adamw": pb.AdamW(**ADAM)}, torch.optim.AdamW, TORCH_ADAM),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_twenty_steps_equal_those_of_torch_optim(
    kind: dict[str, object], reference: Callable[..., torch.optim.Optimizer], settings: dict[str, Any], decay: float
) -> None:
    ours = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))
    theirs = copy.deepcopy(ours)
    rows = torch.randn(16, 5)
    declared = pb.Optimizer(learning_rate=RATE, weight_decay=decay, **kind)  # type: ignore[arg-type]  # varies
    our_optimizer = build_optimizer(declared, ours.parameters())
    their_optimizer = reference(theirs.parameters(), weight_decay=decay, **settings)
    for network, optimizer in ((ours, our_optimizer), (theirs, their_optimizer)):
        for _ in range(20):
            network(rows).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    for mine, yours in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, yours)


def test_a_first_step_does_not_import_the_compiler() -> None:
    """It costs seconds before the first step, and it is the reason that this module exists."""
    program = """
import sys
import torch
from modelyard.v1 import training_spec_pb2 as pb
from modelyard_workers.trainer.hardware import choose_device
from modelyard_workers.trainer.optimizers import build_optimizer
choose_device()
torch.manual_seed(0)
layer = torch.nn.Linear(3, 1)
adam = pb.Adam(beta1=0.9, beta2=0.999, epsilon=1e-8)
optimizer = build_optimizer(pb.Optimizer(learning_rate=0.1, adam=adam), layer.parameters())
layer(torch.ones(2, 3)).sum().backward()
optimizer.step()
print(sorted({"torch._dynamo", "torch._inductor", "torch.onnx", "onnx", "sympy"} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
