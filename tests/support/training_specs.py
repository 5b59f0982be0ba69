"""Small specs and dataset descriptions to bend in tests."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.v1 import tensor_pb2
from modelyard.v1 import training_spec_pb2 as pb
from modelyard.v1.dataset_pb2 import Dataset


def linear(outputs: int, inputs: int = 0) -> pb.Layer:
    """A fully connected layer."""
    return pb.Layer(linear=pb.LinearLayer(inputs=inputs, outputs=outputs))


def relu() -> pb.Layer:
    """max(0, x)."""
    return pb.Layer(activation=pb.ACTIVATION_RELU)


def flatten() -> pb.Layer:
    """To a vector."""
    return pb.Layer(flatten=pb.FlattenLayer())


def network(*layers: pb.Layer, input_shape: Sequence[int] = ()) -> pb.Network:
    """Layers one after the other."""
    return pb.Network(input_shape=input_shape, layer_list=pb.LayerList(layers=layers))


def regression(**changes: object) -> pb.TrainingSpec:
    """Three features `a`, `b`, `c`, target `y`; only what is required."""
    spec = pb.TrainingSpec(
        dataset="datasets/table",
        model="models/table",
        task=pb.TASK_REGRESSION,
        target_column="y",
        network=network(linear(4), relu(), linear(1)),
        optimizer=pb.Optimizer(learning_rate=0.01, adam=pb.Adam()),
        max_epochs=10,
    )
    return _changed(spec, changes)


def classification(**changes: object) -> pb.TrainingSpec:
    """8 x 8 images in the column `image`, classes 0 to 9 in `label`; only what is required."""
    spec = pb.TrainingSpec(
        dataset="datasets/pictures",
        model="models/pictures",
        task=pb.TASK_CLASSIFICATION,
        target_column="label",
        network=pb.Network(small_cnn=pb.SmallCnn(outputs=10)),
        optimizer=pb.Optimizer(learning_rate=0.01, sgd=pb.Sgd()),
        max_epochs=10,
    )
    return _changed(spec, changes)


def table(rows: int = 100) -> Dataset:
    """Fits `regression`."""
    dataset = Dataset(name="datasets/table", format=Dataset.FORMAT_CSV, row_count=rows)
    for name in ("a", "b", "c", "y"):
        dataset.columns.add(name=name, data_type=tensor_pb2.DATA_TYPE_FP64, minimum=-1, maximum=1)
    return dataset


def pictures(rows: int = 100) -> Dataset:
    """Fits `classification`."""
    dataset = Dataset(name="datasets/pictures", format=Dataset.FORMAT_NPZ, row_count=rows)
    dataset.columns.add(name="image", data_type=tensor_pb2.DATA_TYPE_UINT8, shape=[8, 8], maximum=16)
    dataset.columns.add(name="label", data_type=tensor_pb2.DATA_TYPE_INT64, maximum=9)
    return dataset


def column(dataset: Dataset, name: str) -> Dataset.Column:
    """That column, to change."""
    return next(column for column in dataset.columns if column.name == name)


def _changed(spec: pb.TrainingSpec, changes: dict[str, object]) -> pb.TrainingSpec:
    """Sets whole fields; None clears one."""
    for name, value in changes.items():
        spec.ClearField(name)  # type: ignore[arg-type]  # a test's typo raises
        if value is not None:
            spec.MergeFrom(pb.TrainingSpec(**{name: value}))  # type: ignore[arg-type]  # likewise
    return spec
