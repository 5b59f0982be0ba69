"""From PyTorch to ONNX: the same answers, and bytes that tell nothing of the machine that made them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import modelyard_workers
from modelyard.training import check_spec
from modelyard.v1 import training_spec_pb2 as pb
from modelyard_workers.trainer.export import export_onnx
from modelyard_workers.trainer.failures import ParityFailed
from modelyard_workers.trainer.networks import ServedNetwork, build_network
from modelyard_workers.trainer.parity import check_parity
from modelyard_workers.trainer.scaling import Restore, Standardize, statistics
from support.training_specs import classification, flatten, linear, network, pictures

FEATURES = np.random.default_rng(0).normal(3, 2, size=(50, 1, 8, 8)).astype(np.float32)
EVERY_KIND = network(
    pb.Layer(conv2d=pb.Conv2dLayer(out_channels=3, kernel_size=3, padding=1)),
    pb.Layer(batch_norm=pb.BatchNormLayer()),
    pb.Layer(activation=pb.ACTIVATION_GELU),
    pb.Layer(max_pool2d=pb.MaxPool2dLayer(kernel_size=2)),
    pb.Layer(activation=pb.ACTIVATION_SILU),
    flatten(),
    linear(12),
    pb.Layer(batch_norm=pb.BatchNormLayer()),
    pb.Layer(activation=pb.ACTIVATION_TANH),
    pb.Layer(dropout=pb.DropoutLayer(rate=0.5)),
    linear(12),
    pb.Layer(activation=pb.ACTIVATION_SIGMOID),
    pb.Layer(activation=pb.ACTIVATION_RELU),
    linear(10),
)


@pytest.fixture(scope="module")
def served() -> ServedNetwork:
    """Every kind of layer, between both scalings, with batch statistics that are not the initial ones."""
    torch.manual_seed(0)
    plan = check_spec(classification(network=EVERY_KIND), pictures()).plan
    built = build_network(plan)
    standardize = Standardize(statistics(FEATURES))
    built(standardize(torch.from_numpy(FEATURES)))
    answers = Restore(statistics(np.random.default_rng(1).normal(1e4, 1e3, size=(50, 10)).astype(np.float32)))
    return ServedNetwork(standardize, built, answers)


@pytest.fixture(scope="module")
def content(served: ServedNetwork) -> bytes:
    return export_onnx(served, (1, 8, 8), "logits")


def test_every_kind_of_layer_computes_the_same_in_onnx_runtime(served: ServedNetwork, content: bytes) -> None:
    report = check_parity(content, served, FEATURES)
    assert report.rows == 256  # 50 rows, repeated
    assert list(report.batch_sizes) == [1, 2, 7, 64]
    assert report.max_relative_error <= report.relative_tolerance == 1e-4
    assert report.max_absolute_error > 0


def test_the_graph_has_the_names_and_shapes_that_clients_rely_on(content: bytes) -> None:
    model = onnx.load_from_string(content)
    described = [
        (value.name, [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim])
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert described == [("input", ["batch", 1, 8, 8]), ("logits", ["batch", 10])]
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
    assert model.ir_version == 10


def test_the_bytes_tell_nothing_of_the_machine(content: bytes) -> None:
    for told in (
        str(Path(torch.__file__).parent),
        str(Path(modelyard_workers.__file__).parent),
        ".py",
        "site-packages",
        "+cpu",
    ):
        assert told.encode() not in content
    model = onnx.load_from_string(content)
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert not model.metadata_props


def test_the_same_weights_give_the_same_bytes(served: ServedNetwork, content: bytes) -> None:
    assert export_onnx(served, (1, 8, 8), "logits") == content


def test_the_exporter_keeps_quiet(served: ServedNetwork, capfd: pytest.CaptureFixture[str]) -> None:
    export_onnx(served, (1, 8, 8), "logits")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("factor", [2.0, float("nan")])
def test_a_graph_that_computes_something_else_is_refused(served: ServedNetwork, content: bytes, factor: float) -> None:
    model = onnx.load_from_string(content)
    weights = next(entry for entry in model.graph.initializer if entry.name.endswith("weight"))
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(factor), weights.name))
    with pytest.raises(ParityFailed, match="at batch 1 the exported graph differs from PyTorch by up to"):
        check_parity(model.SerializeToString(), served, FEATURES)


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_the_tolerance_does_not_depend_on_the_targets_unit(unit: float) -> None:
    """Answers around zero, where rounding errors are as large as in answers far from it."""
    layer = nn.Linear(64, 1)
    targets = np.random.default_rng(0).normal(0, unit, size=(100, 1)).astype(np.float32)
    served = ServedNetwork(nn.Flatten(), layer, Restore(statistics(targets)))
    report = check_parity(export_onnx(served, (1, 8, 8), "prediction"), served, FEATURES)
    assert report.max_absolute_error < 1e-4 * unit
    assert report.absolute_tolerance < 1e-3 * unit
