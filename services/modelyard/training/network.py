"""A network as a plan: every layer with its shapes and parameters, before a single tensor exists.

`plan_network` is the one place that turns a declared network into layers. The gateway counts and checks with it, the
trainer builds from it, so the two cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.v1 import training_spec_pb2 as pb

from .fields import Field, number, shape_text
from .layers import MAX_CHANNELS, MAX_FEATURES, PlannedLayer, Shape, check_settings, plan_layer

MAX_LAYERS = 1_000
MAX_CNN_STAGES = 8
DEFAULT_CNN_CHANNELS = (16, 32)
SMALLEST_POOLED_SIDE = 4
MAX_PARAMETERS = 350_000_000
"""An ONNX file with its weights inside stays below 1.5 GB (a protobuf message ends at 2 GB)."""


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """The layers of a network, first to last, with shapes of one row."""

    input_shape: Shape
    layers: tuple[PlannedLayer, ...]

    @property
    def output_shape(self) -> Shape:
        """The shape of one row of output."""
        return self.layers[-1].output_shape

    @property
    def parameter_count(self) -> int:
        """Trainable parameters of all layers."""
        return sum(layer.parameter_count for layer in self.layers)


def plan_network(network: pb.Network, input_shape: Shape | None, at: Field) -> NetworkPlan | None:
    """Checks `network`, fills in its defaults and sizes, and plans its layers.

    `input_shape` is None while it is unknown: then only each layer's own settings are checked. Answers None if there is
    no plan; what is wrong with the network is noted at `at`.
    """
    architecture = network.WhichOneof("architecture")
    if architecture == "layer_list":
        return _plan_layer_list(network.layer_list, input_shape, at)
    if architecture == "small_cnn":
        return _plan_small_cnn(network.small_cnn, input_shape, at)
    at.reject("expected exactly one of layer_list, small_cnn; nothing was given")
    return None


def output_field(network: pb.Network, at: Field) -> Field:
    """The field that decides how many values the network answers: where a wrong number of them is reported."""
    if network.WhichOneof("architecture") == "small_cnn":
        return at.child("small_cnn.outputs")
    layers = at.child("layer_list").child("layers")
    last = len(network.layer_list.layers) - 1
    is_linear = network.layer_list.layers[last].HasField("linear")
    return layers.item(last).child("linear.outputs") if is_linear else layers.item(last)


def expand_small_cnn(cnn: pb.SmallCnn, input_shape: Shape) -> list[pb.Layer]:
    """The layers that a small CNN stands for, on images `(channels, height, width)`."""
    layers: list[pb.Layer] = []
    side = min(input_shape[1:])
    for channels in cnn.channels:
        # No bias: the batch normalisation behind it subtracts any constant and adds its own shift.
        conv = pb.Conv2dLayer(out_channels=channels, kernel_size=3, padding=1, without_bias=True)
        layers += [pb.Layer(conv2d=conv), pb.Layer(batch_norm=pb.BatchNormLayer())]
        layers.append(pb.Layer(activation=pb.ACTIVATION_RELU))
        if side >= SMALLEST_POOLED_SIDE:
            layers.append(pb.Layer(max_pool2d=pb.MaxPool2dLayer(kernel_size=2)))
            side //= 2
    layers.append(pb.Layer(flatten=pb.FlattenLayer()))
    if cnn.dropout:
        layers.append(pb.Layer(dropout=pb.DropoutLayer(rate=cnn.dropout)))
    return [*layers, pb.Layer(linear=pb.LinearLayer(outputs=cnn.outputs))]


def _plan_layer_list(layer_list: pb.LayerList, input_shape: Shape | None, at: Field) -> NetworkPlan | None:
    fields = at.child("layer_list").child("layers")
    count = len(layer_list.layers)
    if not fields.check(1 <= count <= MAX_LAYERS, f"expected 1 to {MAX_LAYERS:,} layers, got {count:,}"):
        return None
    allowed = [check_settings(layer, fields.item(index)) for index, layer in enumerate(layer_list.layers)]
    if input_shape is None or not all(allowed):
        return None
    plan = _plan_layers(list(layer_list.layers), input_shape, fields)
    if plan is not None:
        for layer, planned in zip(layer_list.layers, plan.layers, strict=True):
            layer.CopyFrom(planned.layer)
        _check_size(plan, at)
    return plan


def _plan_small_cnn(cnn: pb.SmallCnn, input_shape: Shape | None, at: Field) -> NetworkPlan | None:
    cnn_field = at.child("small_cnn")
    if not cnn.channels:
        cnn.channels.extend(DEFAULT_CNN_CHANNELS)
    if not _check_small_cnn(cnn, cnn_field) or input_shape is None:
        return None
    expected = f"a small_cnn needs [channels, height, width], got {shape_text(input_shape)}"
    if not at.child("input_shape").check(len(input_shape) == 3, expected):
        return None
    layers = expand_small_cnn(cnn, input_shape)
    # The defaults of the layers (strides) are filled in by the same check that a declared list passes.
    for layer in layers:
        check_settings(layer, cnn_field)
    plan = _plan_layers(layers, input_shape, cnn_field)
    if plan is not None:
        _check_size(plan, at)
    return plan


def _check_small_cnn(cnn: pb.SmallCnn, at: Field) -> bool:
    stages = len(cnn.channels)
    channels = at.child("channels")
    results = [channels.check(stages <= MAX_CNN_STAGES, f"expected 1 to {MAX_CNN_STAGES} entries, got {stages}")]
    results += [channels.item(index).within(count, 1, MAX_CHANNELS) for index, count in enumerate(cnn.channels)]
    results.append(at.child("outputs").within(cnn.outputs, 1, MAX_FEATURES))
    dropout = f"expected 0 up to but not including 1, got {number(cnn.dropout)}"
    results.append(at.child("dropout").check(0 <= cnn.dropout < 1, dropout))
    return all(results)


def _plan_layers(layers: list[pb.Layer], input_shape: Shape, fields: Field) -> NetworkPlan | None:
    """Hands the shape from layer to layer; stops at the first that does not fit (the rest would only echo it)."""
    planned: list[PlannedLayer] = []
    shape = input_shape
    for index, layer in enumerate(layers):
        result = plan_layer(layer, shape, fields.item(index))
        if result is None:
            return None
        planned.append(result)
        shape = result.output_shape
    return NetworkPlan(input_shape, tuple(planned))


def _check_size(plan: NetworkPlan, at: Field) -> None:
    count = plan.parameter_count
    at.check(count > 0, "the network has no parameters to train")
    at.check(count <= MAX_PARAMETERS, f"expected at most {MAX_PARAMETERS:,} parameters, got {count:,}")
