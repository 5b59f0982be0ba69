"""Each kind of layer: which settings are allowed, what shape comes out, how many parameters it has.

A shape is that of one row, without the batch dimension: `(10,)`, or `(channels, height, width)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from modelyard.v1 import training_spec_pb2 as pb

from .fields import Field, shape_text

Shape: TypeAlias = tuple[int, ...]

MAX_FEATURES = 1_000_000
MAX_CHANNELS = 65_536
MAX_KERNEL = 64


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """A layer with every size filled in."""

    layer: pb.Layer
    input_shape: Shape
    output_shape: Shape
    parameter_count: int
    """Trainable parameters."""


def check_settings(layer: pb.Layer, at: Field) -> bool:
    """Whether the layer's own settings are allowed, whatever comes into it. Fills in defaults."""
    kind = layer.WhichOneof("kind")
    if kind is None:
        kinds = ", ".join(field.name for field in pb.Layer.DESCRIPTOR.oneofs_by_name["kind"].fields)
        at.reject(f"expected exactly one of {kinds}; nothing was given")
        return False
    check = _SETTINGS.get(kind)
    return check is None or check(layer, at.child(kind))


def plan_layer(layer: pb.Layer, shape: Shape, at: Field) -> PlannedLayer | None:
    """What the layer does with rows of `shape`; None, with the reason noted, if it does not fit.

    Only for a layer that has passed `check_settings`.
    """
    kind = layer.WhichOneof("kind") or ""
    planned = pb.Layer()
    planned.CopyFrom(layer)
    result = _PLANS[kind](planned, shape, at.child(kind))
    if result is None:
        return None
    output_shape, parameter_count = result
    return PlannedLayer(planned, shape, output_shape, parameter_count)


def _linear_settings(layer: pb.Layer, at: Field) -> bool:
    linear = layer.linear
    inputs_fit = at.child("inputs").within(linear.inputs, 0, MAX_FEATURES)
    return at.child("outputs").within(linear.outputs, 1, MAX_FEATURES) and inputs_fit


def _conv2d_settings(layer: pb.Layer, at: Field) -> bool:
    conv = layer.conv2d
    conv.stride = conv.stride or 1
    return all(
        (
            at.child("in_channels").within(conv.in_channels, 0, MAX_CHANNELS),
            at.child("out_channels").within(conv.out_channels, 1, MAX_CHANNELS),
            at.child("kernel_size").within(conv.kernel_size, 1, MAX_KERNEL),
            at.child("stride").within(conv.stride, 1, MAX_KERNEL),
            at.child("padding").within(conv.padding, 0, MAX_KERNEL),
        )
    )


def _max_pool2d_settings(layer: pb.Layer, at: Field) -> bool:
    pool = layer.max_pool2d
    pool.stride = pool.stride or pool.kernel_size
    if not at.child("kernel_size").within(pool.kernel_size, 1, MAX_KERNEL):
        return False
    return at.child("stride").within(pool.stride, 1, MAX_KERNEL)


def _activation_settings(layer: pb.Layer, at: Field) -> bool:
    return at.chosen(pb.Activation.DESCRIPTOR, layer.activation)


def _dropout_settings(layer: pb.Layer, at: Field) -> bool:
    return at.child("rate").fraction(layer.dropout.rate)


_SETTINGS: dict[str, Callable[[pb.Layer, Field], bool]] = {
    "linear": _linear_settings,
    "conv2d": _conv2d_settings,
    "max_pool2d": _max_pool2d_settings,
    "activation": _activation_settings,
    "dropout": _dropout_settings,
}

Plan: TypeAlias = "tuple[Shape, int] | None"


def _plan_linear(layer: pb.Layer, shape: Shape, at: Field) -> Plan:
    linear = layer.linear
    if not at.check(len(shape) == 1, f"expected a vector to come in, got {shape_text(shape)}; put a flatten before it"):
        return None
    linear.inputs = linear.inputs or shape[0]
    fits = f"expected {shape[0]}, the length of what comes in, got {linear.inputs}"
    if not at.child("inputs").check(linear.inputs == shape[0], fits):
        return None
    return (linear.outputs,), linear.outputs * (linear.inputs + (not linear.without_bias))


def _plan_conv2d(layer: pb.Layer, shape: Shape, at: Field) -> Plan:
    conv = layer.conv2d
    if not _is_image(shape, at):
        return None
    conv.in_channels = conv.in_channels or shape[0]
    fits = f"expected {shape[0]}, the channels of what comes in, got {conv.in_channels}"
    if not at.child("in_channels").check(conv.in_channels == shape[0], fits):
        return None
    sides = _window_sides(shape, conv.kernel_size, conv.stride, conv.padding, at)
    if sides is None:
        return None
    weights = conv.in_channels * conv.kernel_size**2 + (not conv.without_bias)
    return (conv.out_channels, *sides), conv.out_channels * weights


def _plan_max_pool2d(layer: pb.Layer, shape: Shape, at: Field) -> Plan:
    pool = layer.max_pool2d
    if not _is_image(shape, at):
        return None
    sides = _window_sides(shape, pool.kernel_size, pool.stride, 0, at)
    return None if sides is None else ((shape[0], *sides), 0)


def _plan_flatten(_layer: pb.Layer, shape: Shape, _at: Field) -> Plan:
    return (prod(shape),), 0


def _plan_same_shape(_layer: pb.Layer, shape: Shape, _at: Field) -> Plan:
    return shape, 0


def _plan_batch_norm(_layer: pb.Layer, shape: Shape, at: Field) -> Plan:
    expected = f"expected a vector or [channels, height, width] to come in, got {shape_text(shape)}"
    if not at.check(len(shape) in (1, 3), expected):
        return None
    return shape, 2 * shape[0]  # a scale and a shift each


def _is_image(shape: Shape, at: Field) -> bool:
    return at.check(len(shape) == 3, f"expected [channels, height, width] to come in, got {shape_text(shape)}")


def _window_sides(shape: Shape, kernel: int, stride: int, padding: int, at: Field) -> tuple[int, int] | None:
    """Height and width after sliding a square window over `shape`."""
    padded = [side + 2 * padding for side in shape[1:]]
    fits = f"expected at most {min(padded)}, the shorter side of what comes in with its padding, got {kernel}"
    if not at.child("kernel_size").check(kernel <= min(padded), fits):
        return None
    height, width = ((side - kernel) // stride + 1 for side in padded)
    return height, width


_PLANS: dict[str, Callable[[pb.Layer, Shape, Field], Plan]] = {
    "linear": _plan_linear,
    "conv2d": _plan_conv2d,
    "max_pool2d": _plan_max_pool2d,
    "flatten": _plan_flatten,
    "activation": _plan_same_shape,
    "dropout": _plan_same_shape,
    "batch_norm": _plan_batch_norm,
}
