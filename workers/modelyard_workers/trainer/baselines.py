"""What costs nothing: linear models on the same rows. A network that does not beat them is not worth serving."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from .scaling import Statistics, statistics

Floats: TypeAlias = NDArray[np.floating[Any]]

LEAST_SQUARES = "linear least squares"
LOGISTIC = "multinomial logistic regression"
_CHUNK_ROWS = 4096
_LOGISTIC_ITERATIONS = 100
_LOGISTIC_PENALTY = 1e-4
"""L2 on the weights: without it, classes that a plane separates would drive them to infinity."""


class _Inputs:
    """Features as standardised vectors, so that the solvers meet numbers of one size."""

    def __init__(self, training_features: Floats) -> None:
        self._found: Statistics = statistics(_flat(training_features).astype(np.float32, copy=False))

    def vectors(self, features: Floats) -> NDArray[np.float64]:
        """[rows, ...] to float64 [rows, elements + 1]; the last element is the constant 1 of the intercept."""
        scaled = (_flat(features) - self._found.mean) / self._found.scale
        return np.concatenate([scaled, np.ones((len(scaled), 1))], axis=1)


def least_squares(features: Floats, targets: Floats, test_features: Floats) -> NDArray[np.float64]:
    """Predictions [test rows, targets] of ordinary linear least squares with an intercept.

    By the normal equations, gathered in chunks; of several solutions (collinear features) the one of least norm.
    """
    inputs = _Inputs(features)
    width = int(np.prod(features.shape[1:])) + 1
    gram, moments = np.zeros((width, width)), np.zeros((width, targets.shape[1]))
    for start in range(0, len(features), _CHUNK_ROWS):
        vectors = inputs.vectors(features[start : start + _CHUNK_ROWS])  # [chunk, width]
        gram += vectors.T @ vectors
        moments += vectors.T @ targets[start : start + _CHUNK_ROWS]
    weights = np.linalg.lstsq(gram, moments, rcond=1e-12)[0]  # [width, targets]
    predictions: NDArray[np.float64] = inputs.vectors(test_features) @ weights
    return predictions


def logistic_regression(
    features: Floats, classes: NDArray[np.int64], test_features: Floats, class_count: int
) -> NDArray[np.float64]:
    """Logits [test rows, class_count] of multinomial logistic regression, fitted by L-BFGS (Liu and Nocedal 1989)."""
    inputs = _Inputs(features)
    vectors = torch.from_numpy(inputs.vectors(features).astype(np.float32))  # [rows, elements + 1]
    truth = torch.from_numpy(classes)
    weights = torch.zeros(vectors.shape[1], class_count, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=_LOGISTIC_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> float:
        solver.zero_grad()
        value = functional.cross_entropy(vectors @ weights, truth) + _LOGISTIC_PENALTY * weights[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value.item()

    solver.step(loss)  # type: ignore[no-untyped-call]
    logits: NDArray[np.float64] = inputs.vectors(test_features) @ weights.detach().double().numpy()
    return logits


def _flat(features: Floats) -> Floats:
    return features.reshape(len(features), -1)
