"""How good predictions are: computed in float64, defined as in scikit-learn (a test compares)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]


def regression_metrics(truth: Floats, prediction: Floats) -> dict[str, float]:
    """`r2`, `rmse`, `mae` of [rows, targets] in the target's own unit; over several targets the mean of each one's.

    `r2` of a target that never varies is 1 if it is hit exactly, else 0 (scikit-learn's convention).
    """
    truth, prediction = truth.astype(np.float64), prediction.astype(np.float64)
    error = prediction - truth
    residual = (error**2).sum(axis=0)
    total = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    varies = total > 0
    r2 = np.where(varies, 1 - residual / np.where(varies, total, 1), np.where(residual > 0, 0.0, 1.0))
    return {
        "r2": float(r2.mean()),
        "rmse": float(np.sqrt((error**2).mean(axis=0)).mean()),
        "mae": float(np.abs(error).mean()),
    }


def classification_metrics(truth: NDArray[np.int64], logits: Floats) -> dict[str, float]:
    """`accuracy`, `macro_f1`, `log_loss` (natural logarithm) of classes [rows] and logits [rows, classes].

    `macro_f1` is the mean over the classes that occur in the truth or among the predictions.
    """
    logits = logits.astype(np.float64)
    predicted = logits.argmax(axis=1)
    largest = logits.max(axis=1, keepdims=True)
    log_sums = largest[:, 0] + np.log(np.exp(logits - largest).sum(axis=1))
    log_probabilities = logits[np.arange(len(truth)), truth] - log_sums
    return {
        "accuracy": float((predicted == truth).mean()),
        "macro_f1": _macro_f1(truth, predicted),
        "log_loss": float(-log_probabilities.mean()),
    }


def _macro_f1(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    classes = np.union1d(truth, predicted)
    hits = np.array([((truth == one) & (predicted == one)).sum() for one in classes])
    named = np.array([(truth == one).sum() + (predicted == one).sum() for one in classes])
    return float((2 * hits / named).mean())
