"""The metrics of each task: what gates may ask about, what the trainer computes."""

from __future__ import annotations

from collections.abc import Mapping

from modelyard.v1.training_spec_pb2 import TASK_CLASSIFICATION, TASK_REGRESSION

METRICS: Mapping[int, tuple[str, ...]] = {
    TASK_REGRESSION: ("r2", "rmse", "mae"),
    TASK_CLASSIFICATION: ("accuracy", "macro_f1", "log_loss"),
}
