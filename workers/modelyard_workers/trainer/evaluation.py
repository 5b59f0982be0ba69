"""Scoring the trained network on the test rows, beside the baseline, and asking the gates."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from modelyard.v1.training_job_pb2 import Evaluation
from modelyard.v1.training_spec_pb2 import TASK_CLASSIFICATION, MetricGate, TrainingSpec

from . import baselines
from .failures import Diverged, GateRejected
from .loop import EVALUATION_ROWS
from .metrics import classification_metrics, regression_metrics
from .splits import Parts
from .tables import Table


def evaluate(served: nn.Module, table: Table, parts: Parts, spec: TrainingSpec) -> Evaluation:
    """Metrics of `served` (on the CPU) and of the baseline on the same test rows.

    Raises Diverged if a prediction is not finite.
    """
    features, targets = table.features[parts.training], table.targets[parts.training]
    test_features, truth = table.features[parts.test], table.targets[parts.test]
    answers = predict(served, test_features)
    if not np.isfinite(answers).all():
        raise Diverged("the trained network answers test rows with values that are not finite")
    if spec.task == TASK_CLASSIFICATION:
        baseline = baselines.LOGISTIC
        logits = baselines.logistic_regression(features, targets, test_features, answers.shape[1])
        metrics = classification_metrics(truth, answers)
        baseline_metrics = classification_metrics(truth, logits)
    else:
        baseline = baselines.LEAST_SQUARES
        metrics = regression_metrics(truth, answers)
        baseline_metrics = regression_metrics(truth, baselines.least_squares(features, targets, test_features))
    return Evaluation(
        metrics=metrics,
        baseline_metrics=baseline_metrics,
        baseline=baseline,
        test_rows=len(parts.test),
        training_rows=len(parts.training),
        validation_rows=len(parts.validation),
    )


def check_gates(evaluation: Evaluation, gates: Iterable[MetricGate]) -> None:
    """Raises GateRejected with every gate that the metrics do not pass."""
    rejected = []
    for gate in gates:
        value = evaluation.metrics[gate.metric]
        if gate.HasField("minimum") and not value >= gate.minimum:
            rejected.append(f"{gate.metric} is {value:.6g}, at least {gate.minimum:g} is asked for")
        if gate.HasField("maximum") and not value <= gate.maximum:
            rejected.append(f"{gate.metric} is {value:.6g}, at most {gate.maximum:g} is asked for")
    if rejected:
        raise GateRejected("; ".join(rejected))


@torch.no_grad()
def predict(served: nn.Module, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Answers [rows, outputs] to raw rows, in evaluation mode on the CPU."""
    served.eval()
    chunks = [
        served(torch.from_numpy(features[start : start + EVALUATION_ROWS])).numpy()
        for start in range(0, len(features), EVALUATION_ROWS)
    ]
    return np.concatenate(chunks)
