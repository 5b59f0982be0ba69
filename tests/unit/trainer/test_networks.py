"""Networks as built: what the plan said is what PyTorch does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import Violations
from modelyard.training import NetworkPlan
from modelyard.training.fields import Field
from modelyard.training.layers import Shape
from modelyard.training.network import plan_network
from modelyard.v1 import training_spec_pb2 as pb
from modelyard_workers.trainer.networks import build_network
from support.training_specs import flatten, linear, network

sizes = st.integers(1, 4)
image_layers = st.one_of(
    st.builds(
        lambda channels, kernel, stride, padding, bare: pb.Layer(
            conv2d=pb.Conv2dLayer(
                out_channels=channels, kernel_size=kernel, stride=stride, padding=padding, without_bias=bare
            )
        ),
        sizes, sizes, st.integers(0, 3), st.integers(0, 2), st.booleans(),
    ),
    st.builds(
        lambda kernel, stride: pb.Layer(max_pool2d=pb.MaxPool2dLayer(kernel_size=kernel, stride=stride)),
        st.integers(1, 3), st.integers(0, 3),
    ),
)  # fmt: skip
any_shape_layers = st.one_of(
    st.just(pb.Layer(batch_norm=pb.BatchNormLayer())),
    st.builds(lambda rate: pb.Layer(dropout=pb.DropoutLayer(rate=rate)), st.floats(0.1, 0.9)),
    st.sampled_from([value for value in pb.Activation.values() if value]).map(lambda kind: pb.Layer(activation=kind)),
)
vector_layers = st.one_of(
    any_shape_layers,
    st.builds(
        lambda outputs, bare: pb.Layer(linear=pb.LinearLayer(outputs=outputs, without_bias=bare)), sizes, st.booleans()
    ),
)
networks = st.builds(
    lambda image, vector, last: network(*image, flatten(), *vector, linear(last)),
    st.lists(st.one_of(image_layers, any_shape_layers), max_size=5),
    st.lists(vector_layers, max_size=5),
    sizes,
) | st.builds(
    lambda channels, outputs, dropout: pb.Network(
        small_cnn=pb.SmallCnn(channels=channels, outputs=outputs, dropout=dropout)
    ),
    st.lists(sizes, max_size=4),
    sizes,
    st.floats(0, 0.9),
)


def plan_of(declared: pb.Network, shape: Shape) -> NetworkPlan | None:
    return plan_network(declared, shape, Field(Violations(), ""))


@given(networks, st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)))
@settings(max_examples=200)
def test_shapes_and_parameters_are_those_of_the_plan(declared: pb.Network, shape: Shape) -> None:
    plan = plan_of(declared, shape)
    if plan is None:  # the layers do not fit this image, and PyTorch is never asked
        return
    built = build_network(plan).eval()
    values = torch.zeros(2, *shape)
    for layer, planned in zip(built, plan.layers, strict=True):
        values = layer(values)
        assert tuple(values.shape[1:]) == planned.output_shape
        assert sum(parameter.numel() for parameter in layer.parameters()) == planned.parameter_count
    assert sum(parameter.numel() for parameter in built.parameters()) == plan.parameter_count


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pb.ACTIVATION_RELU, [0.0, 1.0]),
        (pb.ACTIVATION_TANH, [-0.7615942, 0.7615942]),
        (pb.ACTIVATION_SIGMOID, [0.2689414, 0.7310586]),
        (pb.ACTIVATION_GELU, [-0.1586553, 0.8413447]),
        (pb.ACTIVATION_SILU, [-0.2689414, 0.7310586]),
    ],
)
def test_activations_compute_what_the_api_says(kind: pb.Activation.ValueType, expected: list[float]) -> None:
    plan = plan_of(network(pb.Layer(activation=kind), linear(1)), (2,))
    assert plan is not None
    torch.testing.assert_close(build_network(plan)[0](torch.tensor([-1.0, 1.0])), torch.tensor(expected))
