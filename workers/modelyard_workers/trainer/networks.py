"""From a plan to a network of PyTorch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from modelyard.training import NetworkPlan, PlannedLayer
from modelyard.v1 import training_spec_pb2 as pb

_ACTIVATIONS: dict[int, Callable[[], nn.Module]] = {
    pb.ACTIVATION_RELU: nn.ReLU,
    pb.ACTIVATION_TANH: nn.Tanh,
    pb.ACTIVATION_SIGMOID: nn.Sigmoid,
    pb.ACTIVATION_GELU: nn.GELU,
    pb.ACTIVATION_SILU: nn.SiLU,
}


def build_network(plan: NetworkPlan) -> nn.Sequential:
    """The planned layers with PyTorch's default initialisation, drawn from its global generator (seed it first)."""
    return nn.Sequential(*(_BUILDERS[planned.layer.WhichOneof("kind") or ""](planned) for planned in plan.layers))


def _linear(planned: PlannedLayer) -> nn.Module:
    linear = planned.layer.linear
    return nn.Linear(linear.inputs, linear.outputs, bias=not linear.without_bias)


def _conv2d(planned: PlannedLayer) -> nn.Module:
    conv = planned.layer.conv2d
    return nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        bias=not conv.without_bias,
    )


def _max_pool2d(planned: PlannedLayer) -> nn.Module:
    pool = planned.layer.max_pool2d
    return nn.MaxPool2d(pool.kernel_size, stride=pool.stride)


def _activation(planned: PlannedLayer) -> nn.Module:
    return _ACTIVATIONS[planned.layer.activation]()


def _batch_norm(planned: PlannedLayer) -> nn.Module:
    shape = planned.input_shape
    return nn.BatchNorm1d(shape[0]) if len(shape) == 1 else nn.BatchNorm2d(shape[0])


_BUILDERS: dict[str, Callable[[PlannedLayer], nn.Module]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "max_pool2d": _max_pool2d,
    "flatten": lambda _: nn.Flatten(),
    "activation": _activation,
    "dropout": lambda planned: nn.Dropout(planned.layer.dropout.rate),
    "batch_norm": _batch_norm,
}


class ServedNetwork(nn.Module):
    """What is exported: scaling, network, and the way back to the target's unit, from raw rows to the final answer."""

    def __init__(self, scaling: nn.Module, network: nn.Module, restore: nn.Module) -> None:
        super().__init__()
        self.scaling = scaling
        self.network = network
        self.restore = restore

    def forward(self, rows: Tensor) -> Tensor:
        """[batch, *input_shape] raw values to [batch, outputs]: predictions, or logits of a classification."""
        answer: Tensor = self.restore(self.network(self.scaling(rows)))
        return answer
