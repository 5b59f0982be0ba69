"""Shapes and parameter counts of networks that do not exist yet, and what is said when layers do not fit."""

from __future__ import annotations

import pytest

from modelyard.core.errors import Violations
from modelyard.training.fields import Field
from modelyard.training.layers import Shape
from modelyard.training.network import NetworkPlan, plan_network
from modelyard.v1 import training_spec_pb2 as pb
from support.training_specs import flatten, linear, network, relu


def conv(outputs: int, kernel: int, *, in_channels: int = 0, stride: int = 0, padding: int = 0) -> pb.Layer:
    settings = pb.Conv2dLayer(
        in_channels=in_channels, out_channels=outputs, kernel_size=kernel, stride=stride, padding=padding
    )
    return pb.Layer(conv2d=settings)


def pool(kernel: int, stride: int = 0) -> pb.Layer:
    return pb.Layer(max_pool2d=pb.MaxPool2dLayer(kernel_size=kernel, stride=stride))


def planned(declared: pb.Network, shape: Shape) -> NetworkPlan:
    found = Violations()
    plan = plan_network(declared, shape, Field(found, "network"))
    assert not found.found
    assert plan is not None
    return plan


def refused(declared: pb.Network, shape: Shape | None) -> dict[str, str]:
    found = Violations()
    plan_network(declared, shape, Field(found, "network"))
    return {violation.field.removeprefix("network."): violation.description for violation in found.found}


def test_the_diabetes_network_has_1101_parameters() -> None:
    plan = planned(network(linear(20), relu(), linear(40), relu(), linear(1)), (10,))
    assert [layer.output_shape for layer in plan.layers] == [(20,), (20,), (40,), (40,), (1,)]
    assert plan.parameter_count == 10 * 20 + 20 + 20 * 40 + 40 + 40 + 1 == 1101


def test_a_layer_without_bias_has_fewer_parameters() -> None:
    bare = pb.Layer(linear=pb.LinearLayer(outputs=5, without_bias=True))
    assert planned(network(bare), (3,)).parameter_count == 15


def test_images_shrink_as_windows_slide() -> None:
    layers = (conv(4, 3), pool(2), conv(6, 3, stride=2, padding=1), flatten())
    plan = planned(network(*layers), (1, 28, 20))
    assert [layer.output_shape for layer in plan.layers] == [(4, 26, 18), (4, 13, 9), (6, 7, 5), (210,)]
    assert [layer.parameter_count for layer in plan.layers] == [4 * 9 + 4, 0, 6 * 4 * 9 + 6, 0]


def test_a_small_cnn_pools_while_the_image_is_large_enough() -> None:
    cnn = pb.Network(small_cnn=pb.SmallCnn(channels=[2, 3, 5], outputs=7, dropout=0.5))
    plan = planned(cnn, (1, 8, 9))
    kinds = [layer.layer.WhichOneof("kind") for layer in plan.layers]
    stage = ["conv2d", "batch_norm", "activation"]
    assert kinds == [*stage, "max_pool2d", *stage, "max_pool2d", *stage, "flatten", "dropout", "linear"]
    assert plan.layers[-3].output_shape == (5 * 2 * 2,)
    assert plan.output_shape == (7,)
    convolutions = 9 * (1 * 2 + 2 * 3 + 3 * 5)
    assert plan.parameter_count == convolutions + 2 * (2 + 3 + 5) + (20 + 1) * 7


@pytest.mark.parametrize(
    ("layers", "shape", "field", "said"),
    [
        ([linear(3), linear(1, inputs=4)], (2,), "[1].linear.inputs", "expected 3, the length of what comes in, got 4"),
        ([linear(3)], (1, 8, 8), "[0].linear", "got [1, 8, 8]; put a flatten before it"),
        ([conv(1, 3)], (9,), "[0].conv2d", "expected [channels, height, width] to come in, got [9]"),
        ([conv(1, 3, in_channels=3)], (1, 8, 8), "[0].conv2d.in_channels", "expected 1, the channels"),
        ([conv(1, 9)], (1, 8, 12), "[0].conv2d.kernel_size", "expected at most 8, the shorter side"),
        ([pool(3)], (1, 2, 4), "[0].max_pool2d.kernel_size", "expected at most 2"),
        ([pb.Layer(batch_norm=pb.BatchNormLayer())], (4, 4), "[0].batch_norm", "got [4, 4]"),
    ],
)
def test_the_layer_that_does_not_fit_is_named(layers: list[pb.Layer], shape: Shape, field: str, said: str) -> None:
    assert said in refused(network(*layers), shape)[f"layer_list.layers{field}"]


@pytest.mark.parametrize("shape", [None, (4,)])
@pytest.mark.parametrize(
    ("layer", "field", "said"),
    [
        (pb.Layer(), "", "expected exactly one of linear, conv2d, max_pool2d"),
        (linear(0), ".linear.outputs", "expected 1 to 1,000,000, got 0"),
        (linear(1, inputs=-1), ".linear.inputs", "got -1"),
        (conv(0, 3), ".conv2d.out_channels", "got 0"),
        (conv(1, 65), ".conv2d.kernel_size", "expected 1 to 64, got 65"),
        (conv(1, 3, stride=-1), ".conv2d.stride", "got -1"),
        (conv(1, 3, padding=-1), ".conv2d.padding", "got -1"),
        (pool(0), ".max_pool2d.kernel_size", "got 0"),
        (pb.Layer(activation=pb.ACTIVATION_UNSPECIFIED), ".activation", "RELU, TANH, SIGMOID, GELU, SILU; nothing"),
        (pb.Layer(activation=9), ".activation", "got the unknown value 9"),  # type: ignore[arg-type]  # as it may come
        (pb.Layer(dropout=pb.DropoutLayer()), ".dropout.rate", "above 0 and below 1, got 0"),
    ],
)
def test_settings_are_checked_even_while_the_input_is_unknown(
    layer: pb.Layer, field: str, said: str, shape: Shape | None
) -> None:
    assert said in refused(network(layer, linear(1)), shape)[f"layer_list.layers[0]{field}"]


@pytest.mark.parametrize(
    ("cnn", "shape", "field", "said"),
    [
        (pb.SmallCnn(), (1, 8, 8), "small_cnn.outputs", "got 0"),
        (pb.SmallCnn(outputs=2, channels=[1] * 9), (1, 8, 8), "small_cnn.channels", "expected 1 to 8 entries, got 9"),
        (pb.SmallCnn(outputs=2, channels=[4, 0]), (1, 8, 8), "small_cnn.channels[1]", "got 0"),
        (pb.SmallCnn(outputs=2, dropout=1), (1, 8, 8), "small_cnn.dropout", "not including 1, got 1"),
        (pb.SmallCnn(outputs=2), (64,), "input_shape", "needs [channels, height, width], got [64]"),
    ],
)
def test_a_wrong_small_cnn_is_refused(cnn: pb.SmallCnn, shape: Shape, field: str, said: str) -> None:
    assert said in refused(pb.Network(small_cnn=cnn), shape)[field]


def test_a_network_needs_an_architecture_layers_and_parameters() -> None:
    assert "layer_list, small_cnn" in next(iter(refused(pb.Network(), (4,)).values()))
    assert "1 to 1,000 layers, got 0" in refused(network(), (4,))["layer_list.layers"]
    assert "1 to 1,000 layers, got 1,001" in refused(network(*[relu()] * 1001), (4,))["layer_list.layers"]
    assert "no parameters to train" in next(iter(refused(network(relu()), (4,)).values()))


def test_a_network_too_large_for_one_file_is_refused() -> None:
    assert "at most 350,000,000 parameters" in next(
        iter(refused(network(linear(1_000_000), linear(400)), (4,)).values())
    )
