"""What `check_spec` accepts, fills in and refuses, by field."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import InvalidFields
from modelyard.training import check_spec
from modelyard.v1 import tensor_pb2
from modelyard.v1 import training_spec_pb2 as pb
from modelyard.v1.dataset_pb2 import Dataset
from support.training_specs import (
    classification,
    column,
    flatten,
    linear,
    network,
    pictures,
    regression,
    relu,
    table,
)


def violations(spec: pb.TrainingSpec, dataset: Dataset | None) -> dict[str, str]:
    """Field below the spec to description."""
    with pytest.raises(InvalidFields) as caught:
        check_spec(spec, dataset)
    return {
        violation.field.removeprefix("training_job.spec."): violation.description
        for violation in caught.value.violations
    }


def test_defaults_are_filled_in() -> None:
    spec = check_spec(regression(), table()).spec
    assert list(spec.feature_columns) == ["a", "b", "c"]
    assert list(spec.network.input_shape) == [3]
    assert [layer.linear.inputs for layer in spec.network.layer_list.layers if layer.HasField("linear")] == [3, 4]
    assert (spec.input_scaling, spec.loss) == (pb.SCALING_NONE, pb.LOSS_MEAN_SQUARED_ERROR)
    assert (spec.batch_size, spec.publication.alias) == (32, "live")
    assert (spec.split.validation_fraction, spec.split.test_fraction) == (0.15, 0.15)
    assert (spec.optimizer.adam.beta1, spec.optimizer.adam.beta2, spec.optimizer.adam.epsilon) == (0.9, 0.999, 1e-8)
    assert not spec.HasField("early_stopping")


def test_an_image_without_channels_gets_one() -> None:
    checked = check_spec(classification(), pictures())
    assert list(checked.spec.network.input_shape) == [1, 8, 8]
    assert list(checked.spec.network.small_cnn.channels) == [16, 32]
    assert checked.spec.loss == pb.LOSS_CROSS_ENTROPY


def test_the_callers_spec_stays_as_it_was() -> None:
    spec = regression()
    before = spec.SerializeToString(deterministic=True)
    check_spec(spec, table())
    assert spec.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("spec", "dataset"), [(regression(), table()), (classification(), pictures()), (regression(), None)]
)
def test_checking_again_changes_nothing(spec: pb.TrainingSpec, dataset: Dataset | None) -> None:
    once = check_spec(spec, dataset)
    assert check_spec(once.spec, dataset).spec == once.spec


def test_the_network_is_planned_when_its_input_is_known() -> None:
    assert check_spec(regression(), table()).parameter_count == (3 + 1) * 4 + (4 + 1) * 1
    declared = regression(network=network(linear(1), input_shape=[3]))
    assert check_spec(declared, None).plan.parameter_count == 4
    assert check_spec(regression(), None).parameter_count == 0


def test_an_empty_spec_is_told_everything_that_is_required() -> None:
    found = violations(pb.TrainingSpec(), None)
    assert set(found) == {"dataset", "model", "task", "target_column", "network", "optimizer", "max_epochs"}
    assert found["max_epochs"] == "expected 1 to 1,000,000, got 0"
    assert found["task"] == "expected one of REGRESSION, CLASSIFICATION; nothing was given"


def test_everything_wrong_is_said_at_once_under_the_given_path() -> None:
    with pytest.raises(InvalidFields) as caught:
        check_spec(regression(max_epochs=0, batch_size=-1, dataset="../etc"), table(), path="spec")
    assert [violation.field for violation in caught.value.violations] == [
        "spec.dataset",
        "spec.max_epochs",
        "spec.batch_size",
    ]


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"dataset": "/etc/passwd"}, "dataset", "expected datasets/{dataset}"),
        ({"model": "models/../../x"}, "model", "expected models/{model}"),
        ({"max_epochs": 1_000_001}, "max_epochs", "got 1,000,001"),
        ({"batch_size": 65_537}, "batch_size", "expected 1 to 65,536"),
        ({"task": 99}, "task", "got the unknown value 99"),
        ({"loss": pb.LOSS_CROSS_ENTROPY}, "loss", "for REGRESSION, got CROSS_ENTROPY"),
        ({"input_scaling": 77}, "input_scaling", "got the unknown value 77"),
        ({"early_stopping": pb.EarlyStopping()}, "early_stopping.patience", "got 0"),
        ({"early_stopping": pb.EarlyStopping(patience=1, min_delta=-1)}, "early_stopping.min_delta", "0 or above"),
        ({"split": pb.DataSplit(test_fraction=1)}, "split.test_fraction", "above 0 and below 1"),
        ({"split": pb.DataSplit(test_fraction=0.5, validation_fraction=0.5)}, "split", "nothing is left for training"),
        ({"publication": pb.Publication(alias="Live!")}, "publication.alias", "expected an id"),
        ({"publication": pb.Publication(alias="live", keep_alias=True)}, "publication.alias", "moves no alias"),
        ({"feature_columns": ["a", "a"]}, "feature_columns[1]", "is there already"),
        ({"feature_columns": ["a", "y"]}, "feature_columns[1]", "is the target"),
        ({"feature_columns": ["a", "bb"]}, "feature_columns[1]", "did you mean 'b'?"),
        ({"target_column": "z"}, "target_column", "no column 'z'; it has 'a', 'b', 'c', 'y'"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(changes: dict[str, object], field: str, said: str) -> None:
    assert said in violations(regression(**changes), table())[field]


@pytest.mark.parametrize(
    ("optimizer", "field", "said"),
    [
        (None, "optimizer", "required"),
        (pb.Optimizer(learning_rate=0.1), "optimizer", "expected exactly one of gradient_descent, sgd, momentum"),
        (pb.Optimizer(sgd=pb.Sgd()), "optimizer.learning_rate", "a finite number above 0, got 0"),
        (pb.Optimizer(sgd=pb.Sgd(), learning_rate=math.nan), "optimizer.learning_rate", "got nan"),
        (pb.Optimizer(sgd=pb.Sgd(), learning_rate=math.inf), "optimizer.learning_rate", "got inf"),
        (pb.Optimizer(sgd=pb.Sgd(), learning_rate=1, weight_decay=-1), "optimizer.weight_decay", "0 or above"),
        (pb.Optimizer(momentum=pb.Momentum(momentum=1), learning_rate=1), "optimizer.momentum.momentum", "below 1"),
        (pb.Optimizer(nesterov=pb.Nesterov(momentum=-1), learning_rate=1), "optimizer.nesterov.momentum", "below 1"),
        (pb.Optimizer(adam=pb.Adam(beta1=1), learning_rate=1), "optimizer.adam.beta1", "below 1"),
        (pb.Optimizer(adamw=pb.AdamW(beta2=-1), learning_rate=1), "optimizer.adamw.beta2", "above 0"),
        (pb.Optimizer(adamw=pb.AdamW(epsilon=-1), learning_rate=1), "optimizer.adamw.epsilon", "above 0"),
    ],
)
def test_a_wrong_optimiser_is_refused(optimizer: pb.Optimizer | None, field: str, said: str) -> None:
    assert said in violations(regression(optimizer=optimizer), table())[field]


def test_an_optimiser_of_a_later_release_counts_as_none() -> None:
    optimizer = pb.Optimizer.FromString(
        pb.Optimizer(learning_rate=0.1).SerializeToString() + b"\xfa\x3e\x00"
    )  # field 1007
    assert "nothing known was given" in violations(regression(optimizer=optimizer), table())["optimizer"]


def test_nine_features_do_not_fit_a_network_of_ten_inputs() -> None:
    dataset = table()
    for index in range(6):
        dataset.columns.add(name=f"more{index}", data_type=tensor_pb2.DATA_TYPE_FP32)
    by_shape = regression(network=network(linear(1, inputs=10), input_shape=[10]))
    assert "expected 9 elements" in violations(by_shape, dataset)["network.input_shape"]
    by_layer = regression(network=network(linear(1, inputs=10)))
    assert violations(by_layer, dataset) == {
        "network.layer_list.layers[0].linear.inputs": "expected 9, the length of what comes in, got 10"
    }


def test_columns_may_be_read_as_an_image_of_as_many_pixels() -> None:
    dataset = Dataset(name="datasets/pixels", row_count=100)
    for index in range(64):
        dataset.columns.add(name=f"pixel{index}", data_type=tensor_pb2.DATA_TYPE_UINT8)
    dataset.columns.add(name="label", data_type=tensor_pb2.DATA_TYPE_INT64, maximum=9)
    cnn = pb.Network(small_cnn=pb.SmallCnn(outputs=10), input_shape=[1, 8, 8])
    assert check_spec(classification(network=cnn), dataset).plan.input_shape == (1, 8, 8)


def test_text_in_a_numeric_column_is_shown_with_its_row() -> None:
    dataset = table()
    column(dataset, "b").data_type = tensor_pb2.DATA_TYPE_BYTES
    column(dataset, "b").first_text_row, column(dataset, "b").first_text = 17, "n/a?"
    assert violations(regression(), dataset) == {
        "feature_columns[1]": "column 'b' has text among its numbers, first 'n/a?' in row 17"
    }


@pytest.mark.parametrize(("name", "field"), [("c", "feature_columns[2]"), ("y", "target_column")])
@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"data_type": tensor_pb2.DATA_TYPE_BYTES}, "holds text; numbers are needed"),
        ({"null_count": 1_234}, "has 1,234 missing values"),
        ({"non_finite_count": 2}, "has 2 values that are not a number or infinite"),
        ({"maximum": 1e39}, "above 3.40282e+38, the greatest 32-bit float"),
    ],
)
def test_columns_that_cannot_be_learned_from_are_refused(
    name: str, field: str, facts: dict[str, int], said: str
) -> None:
    dataset = table()
    column(dataset, name).MergeFrom(Dataset.Column(**facts))  # type: ignore[arg-type]  # the facts vary
    assert said in violations(regression(), dataset)[field]


def test_an_array_must_be_the_only_feature() -> None:
    dataset = pictures()
    dataset.columns.add(name="age", data_type=tensor_pb2.DATA_TYPE_FP32)
    assert "must be the only feature" in violations(classification(), dataset)["feature_columns[0]"]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-1, 9, "numbered from 0, column 'label' holds -1"), (0, 9.5, "holds 9.5"), (0.25, 9, "holds 0.25")],
)
def test_classes_are_integers_from_0(low: float, high: float, said: str) -> None:
    dataset = pictures()
    column(dataset, "label").minimum, column(dataset, "label").maximum = low, high
    assert said in violations(classification(), dataset)["target_column"]


def test_every_class_needs_an_output() -> None:
    dataset = pictures()
    column(dataset, "label").maximum = 10
    assert violations(classification(), dataset) == {
        "network.small_cnn.outputs": "expected at least 11, one output per class, got 10"
    }
    one = classification(network=network(flatten(), linear(1)))
    assert "expected at least 10" in violations(one, pictures())["network.layer_list.layers[1].linear.outputs"]


def test_a_regression_answers_one_value_per_target() -> None:
    two = regression(network=network(linear(2), relu()))
    assert violations(two, table())["network.layer_list.layers[1]"] == "expected 1, one output per target, got 2"
    dataset = table()
    column(dataset, "y").shape.extend([2])
    assert check_spec(two, dataset).target_shape == (2,)


def test_a_network_must_end_in_a_vector() -> None:
    image = network(pb.Layer(conv2d=pb.Conv2dLayer(out_channels=10, kernel_size=3)))
    found = violations(classification(network=image), pictures())
    assert found["network.layer_list.layers[0]"] == "expected the network to end in a vector, got [10, 6, 6]"


def test_batch_normalisation_needs_more_than_one_row() -> None:
    assert (
        "expected 2 or more for batch normalisation"
        in violations(classification(batch_size=1), pictures())["batch_size"]
    )
    whole = pb.Optimizer(learning_rate=1, gradient_descent=pb.GradientDescent())
    assert check_spec(classification(batch_size=1, optimizer=whole), pictures()).parameter_count > 0


def test_only_a_regression_target_is_standardised() -> None:
    assert "only the target" in violations(classification(standardize_target=True), pictures())["standardize_target"]


@pytest.mark.parametrize("rows", [0, 13])
def test_too_few_rows_for_the_split_are_refused(rows: int) -> None:
    found = violations(regression(), table(rows))
    expected = (
        {"dataset": "datasets/table has no rows"}
        if rows == 0
        else {"split": "datasets/table has 13 rows; 14 or more are needed for a share of 0.15"}
    )
    assert found == expected


@pytest.mark.parametrize(
    ("gate", "field", "said"),
    [
        (pb.MetricGate(metric="accuracy", minimum=0.9), "metric", "expected one of r2, rmse, mae, got 'accuracy'"),
        (pb.MetricGate(metric="r2"), "", "expected a minimum or a maximum"),
        (pb.MetricGate(metric="r2", minimum=math.nan), ".minimum", "got nan"),
        (pb.MetricGate(metric="r2", minimum=2, maximum=1), "", "the minimum 2 is above the maximum 1"),
    ],
)
def test_gates_must_make_sense(gate: pb.MetricGate, field: str, said: str) -> None:
    found = violations(regression(publication=pb.Publication(gates=[gate])), table())
    path = "publication.gates[0]" + ("." + field if field == "metric" else field)
    assert said in found[path]


def test_keeping_the_alias_names_none() -> None:
    assert check_spec(regression(publication=pb.Publication(keep_alias=True)), table()).spec.publication.alias == ""


optimizers = st.builds(
    lambda kind, rate, decay: pb.Optimizer(learning_rate=rate, weight_decay=decay, **kind),
    st.sampled_from(
        [
            {"gradient_descent": pb.GradientDescent()},
            {"sgd": pb.Sgd()},
            {"momentum": pb.Momentum()},
            {"nesterov": pb.Nesterov(momentum=0.5)},
            {"adam": pb.Adam(beta1=0.5)},
            {"adamw": pb.AdamW()},
        ]
    ),
    st.floats(min_value=1e-9, max_value=10),
    st.floats(min_value=0, max_value=1),
)


@given(
    optimizer=optimizers,
    widths=st.lists(st.integers(1, 50), max_size=5),
    scaling=st.sampled_from(pb.Scaling.values()),
    batch_size=st.integers(0, 65_536),
    epochs=st.integers(1, 1_000_000),
    seed=st.integers(0, 2**64 - 1),
)
def test_a_good_spec_normalises_to_a_fixed_point(
    optimizer: pb.Optimizer, widths: list[int], scaling: pb.Scaling.ValueType, batch_size: int, epochs: int, seed: int
) -> None:
    layers = [layer for width in widths for layer in (linear(width), relu())]
    spec = regression(optimizer=optimizer, network=network(*layers, linear(1)), max_epochs=epochs)
    spec.input_scaling, spec.batch_size, spec.seed = scaling, batch_size, seed
    once = check_spec(spec, table())
    twice = check_spec(once.spec, table())
    assert twice.spec == once.spec
    assert twice.digest == once.digest


@given(st.binary(max_size=200))
def test_any_bytes_that_parse_are_checked_or_refused(data: bytes) -> None:
    """Whatever a client sends, the answer is a spec or InvalidFields, never another exception."""
    spec = pb.TrainingSpec()
    try:
        spec.ParseFromString(data)
    except Exception:  # noqa: BLE001  # protobuf's own refusal; the point is what happens with what it accepts
        return
    for dataset in (None, table()):
        try:
            check_spec(spec, dataset)
        except InvalidFields:
            continue
