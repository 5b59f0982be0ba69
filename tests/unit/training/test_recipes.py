"""Recipes: what people may write, and what they are told when it is wrong."""

from __future__ import annotations

import contextlib
import json

import pytest
import yaml
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import InvalidFields
from modelyard.training import check_spec
from modelyard.training.recipes import builtin_recipe, builtin_recipe_names, load_recipe, recipe_text
from modelyard.v1 import training_spec_pb2 as pb
from support.training_specs import linear, network, relu


def refused(text: str) -> dict[str, str]:
    with pytest.raises(InvalidFields) as caught:
        load_recipe(text)
    return {violation.field: violation.description for violation in caught.value.violations}


def test_the_built_in_recipes_pass_every_check() -> None:
    assert builtin_recipe_names() == ["diabetes", "digits"]
    diabetes = check_spec(builtin_recipe("diabetes"), None)
    assert diabetes.plan.input_shape == (10,)
    assert [layer.output_shape for layer in diabetes.plan.layers][::2] == [(20,), (40,), (1,)]
    assert (diabetes.spec.max_epochs, diabetes.spec.standardize_target) == (1000, True)
    digits = check_spec(builtin_recipe("digits"), None)
    assert (digits.plan.input_shape, digits.plan.output_shape) == ((1, 8, 8), (10,))


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidFields, match=r"expected one of diabetes, digits, got '\.\./secrets'"):
        recipe_text("../secrets")


def test_short_forms_mean_the_long_ones() -> None:
    short = """
        task: regression
        network:
          layers: [linear: {outputs: 4}, relu, flatten, activation: Tanh, batch_norm, linear: {outputs: 1}]
        optimizer: {learning_rate: 1e-3, adam: }
        seed: 1e3
    """
    long = pb.TrainingSpec(
        task=pb.TASK_REGRESSION,
        network=network(
            linear(4),
            relu(),
            pb.Layer(flatten=pb.FlattenLayer()),
            pb.Layer(activation=pb.ACTIVATION_TANH),
            pb.Layer(batch_norm=pb.BatchNormLayer()),
            linear(1),
        ),
        optimizer=pb.Optimizer(learning_rate=0.001, adam=pb.Adam()),
        seed=1000,
    )
    assert load_recipe(short) == long


def test_proto_json_is_a_recipe_too() -> None:
    spec = builtin_recipe("digits")
    assert load_recipe(json.dumps(MessageToDict(spec))) == spec
    assert load_recipe(json.dumps(MessageToDict(spec, preserving_proto_field_name=True))) == spec


def test_a_number_beyond_a_double_keeps_its_digits() -> None:
    assert load_recipe(f'seed: "{2**64 - 1}"').seed == 2**64 - 1


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("max_epoch: 3", "max_epoch", "unknown field; did you mean max_epochs?"),
        ("max_epochs: many", "max_epochs", "expected a whole number, got 'many'"),
        ("max_epochs: true", "max_epochs", "expected a whole number, got True"),
        ("max_epochs: 1.5", "max_epochs", "expected a whole number, got 1.5"),
        ("max_epochs: 3000000000", "max_epochs", "expected -2,147,483,648 to 2,147,483,647, got 3,000,000,000"),
        ("seed: -1", "seed", "got -1"),
        ("seed: .inf", "seed", "expected a whole number, got inf"),
        ("max_epochs: 1\nmaxEpochs: 2", "maxEpochs", "is there already under its other name"),
        ("standardize_target: 1", "standardize_target", "expected true or false, got 1"),
        ("dataset: 5", "dataset", "expected text, got 5"),
        ("task: [REGRESSION]", "task", "expected one of REGRESSION, CLASSIFICATION"),
        ("task: 1", "task", "got 1"),
        ("feature_columns: a", "feature_columns", "expected a list, got 'a'"),
        ("feature_columns: [a, 2]", "feature_columns[1]", "expected text, got 2"),
        ("optimizer: adam", "optimizer", "expected a mapping of fields, got 'adam'"),
        ("optimizer: {learning_rate: fast}", "optimizer.learning_rate", "expected a number, got 'fast'"),
        ("optimizer: {adam: {}, sgd: {}}", "optimizer.sgd", "excludes adam; expected exactly one of the two"),
        ("network: {layers: [{linear: {output: 3}}]}", "network.layer_list.layers[0].linear.output", "mean outputs?"),
        ("network: {layers: [swish]}", "network.layer_list.layers[0].swish", "unknown field"),
        ("network: {layers: {linear: 3}}", "network.layer_list.layers", "expected a list, got a mapping"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_path(text: str, field: str, said: str) -> None:
    assert said in refused(text)[field]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected the fields of a training spec, got nothing"),
        ("- a", "got a list"),
        ("a: [1", "not YAML: line 1, column 6"),
        ("a: 1\na: 2", "not YAML: line 2, column 1: 'a' is there twice"),
        ("a: &x [1]\nb: *x", "aliases (*name) are not allowed"),
        ("a: &a [*a]", "aliases (*name) are not allowed"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("? [1]\n: 2", "expected a name as key"),
        ("\x00", "special characters are not allowed"),
        ("[" * 5000, "recursion"),
        ("#" * 1_000_001, "expected at most 1,000,000 characters"),
    ],
)
def test_text_that_is_no_recipe_is_refused(text: str, said: str) -> None:
    assert said in refused(text)["recipe"]


def test_everything_wrong_is_said_at_once() -> None:
    assert set(refused("max_epoch: 3\ntask: guess\nseed: x")) == {"max_epoch", "task", "seed"}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([field.name for field in pb.TrainingSpec.DESCRIPTOR.fields]) | st.text(), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(values)
def test_any_yaml_is_read_or_refused(value: object) -> None:
    """No other exception comes out."""
    with contextlib.suppress(InvalidFields):
        load_recipe(yaml.safe_dump(value))


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """No other exception comes out."""
    with contextlib.suppress(InvalidFields):
        load_recipe(text)


@given(
    learning_rate=st.floats(min_value=1e-300, max_value=1e300),
    epochs=st.integers(-(2**31), 2**31 - 1),
    seed=st.integers(0, 2**64 - 1),
    widths=st.lists(st.integers(0, 2**31 - 1), max_size=4),
    columns=st.lists(st.text(), max_size=3),
)
def test_every_spec_survives_the_way_through_yaml(
    learning_rate: float, epochs: int, seed: int, widths: list[int], columns: list[str]
) -> None:
    spec = pb.TrainingSpec(
        feature_columns=columns,
        network=network(*[linear(width) for width in widths]),
        optimizer=pb.Optimizer(learning_rate=learning_rate, adamw=pb.AdamW(beta1=0.5)),
        max_epochs=epochs,
        seed=seed,
        publication=pb.Publication(gates=[pb.MetricGate(metric="r2", minimum=0)]),
    )
    assert load_recipe(yaml.safe_dump(MessageToDict(spec))) == spec
