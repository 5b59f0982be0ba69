"""The diabetes data and a short training on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes

from modelyard.training import recipes
from modelyard.v1.training_spec_pb2 import TrainingSpec

ROW = np.array([[59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]], dtype=np.float32)
"""The first patient."""


def write_diabetes(path: Path) -> Path:
    """442 rows, ten features in their own units, one target, as CSV."""
    data = load_diabetes(scaled=False)
    table = np.column_stack([data.data, data.target])
    header = ",".join([*data.feature_names, "target"])
    np.savetxt(path, table, delimiter=",", header=header, comments="", fmt="%.10g")
    return path


def short_training(*, model: str, epochs: int = 5, seed: int = 0) -> TrainingSpec:
    """The diabetes recipe, ended early."""
    spec = recipes.builtin_recipe("diabetes")
    spec.model, spec.max_epochs, spec.seed = f"models/{model}", epochs, seed
    return spec
