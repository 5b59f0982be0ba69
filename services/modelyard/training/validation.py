"""Checks a training spec against everything that can be known before training, and fills in its defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import prod

from modelyard.core.errors import Violations
from modelyard.core.names import DATASET, MODEL, check_id
from modelyard.v1 import training_spec_pb2 as pb
from modelyard.v1.dataset_pb2 import Dataset

from .columns import MIN_CLASSES, ColumnPlan, plan_columns
from .digest import spec_digest
from .fields import Field, number, shape_text, short_names
from .layers import Shape
from .metrics import METRICS
from .network import NetworkPlan, output_field, plan_network
from .optimizers import check_optimizer

DEFAULT_BATCH_SIZE = 32
DEFAULT_FRACTION = 0.15
DEFAULT_ALIAS = "live"
MAX_EPOCHS = 1_000_000
MAX_BATCH_SIZE = 65_536
MAX_INPUT_DIMENSIONS = 4

_TASK_LOSSES = {
    pb.TASK_REGRESSION: (pb.LOSS_MEAN_SQUARED_ERROR, pb.LOSS_MEAN_ABSOLUTE_ERROR, pb.LOSS_HUBER),
    pb.TASK_CLASSIFICATION: (pb.LOSS_CROSS_ENTROPY,),
}
"""The losses of each task, its default first."""


@dataclass(frozen=True, slots=True)
class CheckedSpec:
    """A spec that has passed every check."""

    spec: pb.TrainingSpec
    """A copy with every default filled in."""
    network: NetworkPlan | None
    """The network's layers and shapes; None while the input's shape is unknown (neither dataset nor `input_shape`)."""
    target_shape: Shape
    """Shape of one row's target: empty for a scalar, `(k,)` for several."""

    @property
    def plan(self) -> NetworkPlan:
        """`network` of a spec that was checked with its dataset; ValueError if there was none."""
        if self.network is None:
            raise ValueError("the shape of the network's input is unknown")
        return self.network

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical spec, hexadecimal."""
        return spec_digest(self.spec)

    @property
    def parameter_count(self) -> int:
        """Trainable parameters of the network; 0 while `network` is None."""
        return self.network.parameter_count if self.network else 0


def check_spec(spec: pb.TrainingSpec, dataset: Dataset | None, path: str = "training_job.spec") -> CheckedSpec:
    """The normalised form of `spec`; raises InvalidFields with everything that is wrong with it, by field.

    `dataset` is the one the spec names, with the columns found on upload; None leaves out what depends on it.
    Checking the answer's `spec` again changes nothing. `path` is where the spec stands in the request.
    """
    normalised = pb.TrainingSpec()
    normalised.CopyFrom(spec)
    at = Field(Violations(), path)
    _check_names(normalised, at)
    _check_task(normalised, at)
    _check_schedule(normalised, at)
    _check_split(normalised, at)
    _check_publication(normalised, at.child("publication"))
    _check_feature_names(normalised, at.child("feature_columns"))
    columns = plan_columns(normalised, dataset, at) if dataset is not None else None
    network = _check_network(normalised, columns, at)
    at.violations.raise_if_any()
    return CheckedSpec(normalised, network, columns.target_shape if columns else ())


def _check_names(spec: pb.TrainingSpec, at: Field) -> None:
    at.child("dataset").parses(DATASET.parse, spec.dataset)
    at.child("model").parses(MODEL.parse, spec.model)
    at.child("target_column").check(bool(spec.target_column), "required: the column to predict")


def _check_task(spec: pb.TrainingSpec, at: Field) -> None:
    """Task, loss, scaling: the enums and how they fit together."""
    spec.input_scaling = spec.input_scaling or pb.SCALING_NONE
    at.child("input_scaling").chosen(pb.Scaling.DESCRIPTOR, spec.input_scaling)
    if not at.child("task").chosen(pb.Task.DESCRIPTOR, spec.task):
        return
    losses = _TASK_LOSSES[spec.task]
    spec.loss = spec.loss or losses[0]
    if at.child("loss").chosen(pb.Loss.DESCRIPTOR, spec.loss):
        names = short_names(pb.Loss.DESCRIPTOR)
        expected = (
            f"expected {' or '.join(names[loss] for loss in losses)} for {short_names(pb.Task.DESCRIPTOR)[spec.task]}"
        )
        at.child("loss").check(spec.loss in losses, f"{expected}, got {names[spec.loss]}")
    standardizable = spec.task == pb.TASK_REGRESSION or not spec.standardize_target
    at.child("standardize_target").check(standardizable, "only the target of a REGRESSION can be standardised")


def _check_schedule(spec: pb.TrainingSpec, at: Field) -> None:
    """Optimiser, epochs, batches, early stopping."""
    if at.child("optimizer").check(spec.HasField("optimizer"), "required: how the parameters move"):
        check_optimizer(spec.optimizer, at.child("optimizer"))
    at.child("max_epochs").within(spec.max_epochs, 1, MAX_EPOCHS)
    spec.batch_size = spec.batch_size or DEFAULT_BATCH_SIZE
    at.child("batch_size").within(spec.batch_size, 1, MAX_BATCH_SIZE)
    if spec.HasField("early_stopping"):
        stopping = at.child("early_stopping")
        stopping.child("patience").within(spec.early_stopping.patience, 1, MAX_EPOCHS)
        stopping.child("min_delta").not_negative(spec.early_stopping.min_delta)


def _check_split(spec: pb.TrainingSpec, at: Field) -> None:
    split = spec.split
    split.validation_fraction = split.validation_fraction or DEFAULT_FRACTION
    split.test_fraction = split.test_fraction or DEFAULT_FRACTION
    validation = at.child("split.validation_fraction").fraction(split.validation_fraction)
    test = at.child("split.test_fraction").fraction(split.test_fraction)
    held_out = split.validation_fraction + split.test_fraction
    if validation and test:
        at.child("split").check(
            held_out < 1, f"validation and test take {number(held_out)} of the rows; nothing is left for training"
        )


def _check_publication(spec: pb.TrainingSpec, at: Field) -> None:
    publication = spec.publication
    alias = at.child("alias")
    if publication.keep_alias:
        alias.check(not publication.alias, "expected nothing beside keep_alias, which moves no alias")
    else:
        publication.alias = publication.alias or DEFAULT_ALIAS
        alias.parses(check_id, publication.alias)
    for index, gate in enumerate(publication.gates):
        _check_gate(gate, spec.task, at.child("gates").item(index))


def _check_gate(gate: pb.MetricGate, task: int, at: Field) -> None:
    known = METRICS.get(task)
    if known:
        at.child("metric").check(gate.metric in known, f"expected one of {', '.join(known)}, got {gate.metric!r}")
    bounds = [name for name in ("minimum", "maximum") if gate.HasField(name)]
    at.check(bool(bounds), "expected a minimum or a maximum")
    for name in bounds:
        bound = getattr(gate, name)
        at.child(name).check(not math.isnan(bound), "expected a number, got nan")
    if len(bounds) == len(("minimum", "maximum")):
        at.check(not gate.minimum > gate.maximum, f"the minimum {gate.minimum:g} is above the maximum {gate.maximum:g}")


def _check_feature_names(spec: pb.TrainingSpec, at: Field) -> None:
    seen: set[str] = set()
    for index, name in enumerate(spec.feature_columns):
        at.item(index).check(name != spec.target_column, f"{name!r} is the target and cannot be a feature too")
        at.item(index).check(name not in seen, f"{name!r} is there already")
        seen.add(name)


def _check_network(spec: pb.TrainingSpec, columns: ColumnPlan | None, at: Field) -> NetworkPlan | None:
    field = at.child("network")
    if not field.check(spec.HasField("network"), "required: the layers"):
        return None
    plan = plan_network(spec.network, _input_shape(spec.network, columns, field.child("input_shape")), field)
    if plan is None:
        return None
    answer = output_field(spec.network, field)
    shape = plan.output_shape
    _check_batch_norm(spec, plan, at.child("batch_size"))
    if answer.check(len(shape) == 1, f"expected the network to end in a vector, got {shape_text(shape)}"):
        _check_output_count(spec.task, columns, shape[0], answer)
    return plan


def _check_batch_norm(spec: pb.TrainingSpec, plan: NetworkPlan, at: Field) -> None:
    """A single row has no spread to normalise by."""
    is_normalised = any(layer.layer.HasField("batch_norm") for layer in plan.layers)
    by_single_rows = spec.batch_size == 1 and not spec.optimizer.HasField("gradient_descent")
    at.check(not (is_normalised and by_single_rows), "expected 2 or more for batch normalisation, got 1")


def _check_output_count(task: int, columns: ColumnPlan | None, outputs: int, at: Field) -> None:
    """One output per target, or per class. While the data are unknown, only that there are two classes at least."""
    if task == pb.TASK_CLASSIFICATION:
        classes = columns.class_count if columns else MIN_CLASSES
        at.check(outputs >= classes, f"expected at least {classes}, one output per class, got {outputs}")
    elif columns is not None:
        targets = prod(columns.target_shape)
        at.check(outputs == targets, f"expected {targets}, one output per target, got {outputs}")


def _input_shape(network: pb.Network, columns: ColumnPlan | None, at: Field) -> Shape | None:
    """The shape of one row of input, from the spec or else from the features; None if neither says."""
    given = tuple(network.input_shape)
    if given and not at.check(
        len(given) <= MAX_INPUT_DIMENSIONS and all(side >= 1 for side in given),
        f"expected 1 to {MAX_INPUT_DIMENSIONS} dimensions of 1 or more, got {shape_text(given)}",
    ):
        return None
    if columns is None:
        return given or None
    features = columns.feature_shape
    if not given:
        given = (1, *features) if len(features) == 2 else features
        network.input_shape.extend(given)
    at.check(
        prod(given) == prod(features),
        f"expected {prod(features)} elements, as the feature columns give ({shape_text(features)}), "
        f"got {prod(given)} ({shape_text(given)})",
    )
    return given
