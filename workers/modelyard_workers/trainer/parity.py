"""Does the exported graph compute what PyTorch computes? Asked of ONNX Runtime, at several batch sizes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from modelyard.v1.training_job_pb2 import ParityReport

from .evaluation import predict
from .export import INPUT
from .failures import ParityFailed

BATCH_SIZES = (1, 2, 7, 64)
"""One row, the least that is more than one, a size that divides nothing, and a large one."""
MIN_ROWS = 256
MAX_ROWS = 1024
RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-5
"""Beside the relative one, for answers near zero; in units of the answers' typical size (root mean square)."""

Answers: TypeAlias = NDArray[np.float32]


def check_parity(content: bytes, served: nn.Module, features: NDArray[np.float32]) -> ParityReport:
    """Compares on rows of `features` [rows, *input_shape], repeated if they are few.

    Raises ParityFailed if an answer differs by more than the tolerances, or is not finite.
    """
    count = min(max(len(features), MIN_ROWS), MAX_ROWS)
    rows = features[np.arange(count) % len(features)]
    expected = predict(served, rows)
    report = ParityReport(
        rows=count,
        batch_sizes=BATCH_SIZES,
        relative_tolerance=RELATIVE_TOLERANCE,
        absolute_tolerance=ABSOLUTE_TOLERANCE * _typical_size(expected),
    )
    session = _session(content)
    for batch_size in BATCH_SIZES:
        chunks = [
            session.run(None, {INPUT: rows[start : start + batch_size]})[0] for start in range(0, count, batch_size)
        ]
        _compare(expected, np.concatenate(chunks), batch_size, report)
    return report


def _session(content: bytes) -> Any:
    """A session on the CPU with one thread: small graphs, and the machine's cores belong to the training jobs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _typical_size(answers: Answers) -> float:
    """Root mean square; 1 if every answer is 0."""
    size = float(np.sqrt((answers.astype(np.float64) ** 2).mean()))
    return size or 1.0


def _compare(expected: Answers, answered: Answers, batch_size: int, report: ParityReport) -> None:
    """Takes the differences at one batch size into the report; raises ParityFailed if they are too great."""
    if answered.shape != expected.shape:
        raise ParityFailed(f"at batch {batch_size} the graph answers shape {answered.shape}, PyTorch {expected.shape}")
    truth = expected.astype(np.float64)
    size = np.abs(truth)
    difference = np.abs(answered.astype(np.float64) - truth)
    # Near zero, where the absolute tolerance is the wider one, a relative error says nothing.
    judged_relatively = report.relative_tolerance * size > report.absolute_tolerance
    relative = np.divide(difference, size, out=np.zeros_like(difference), where=judged_relatively)
    allowed = np.maximum(report.relative_tolerance * size, report.absolute_tolerance)
    if not (difference <= allowed).all():  # written so that a difference that is not a number fails too
        raise ParityFailed(
            f"at batch {batch_size} the exported graph differs from PyTorch by up to {difference.max():.3g}, "
            f"relative to the value by up to {relative.max():.3g}"
        )
    report.max_absolute_error = max(report.max_absolute_error, float(difference.max()))
    report.max_relative_error = max(report.max_relative_error, float(relative.max()))
