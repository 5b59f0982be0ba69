"""What comes out of a training, and what is made of what goes wrong inside."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from modelyard.training import check_spec
from modelyard.v1 import training_spec_pb2 as pb
from modelyard_workers.trainer.checkpoint_file import Origin
from modelyard_workers.trainer.evaluation import predict
from modelyard_workers.trainer.failures import TrainingRaised, is_foreseen
from modelyard_workers.trainer.fitting import fit
from modelyard_workers.trainer.resuming import CheckpointPlan
from modelyard_workers.trainer.splits import split_rows
from modelyard_workers.trainer.stopping import StopRequest
from modelyard_workers.trainer.tables import Table
from modelyard_workers.trainer.update_stream import UpdateStream
from support.training_specs import linear, network, regression, table

CPU = torch.device("cpu")
NO_CHECKPOINTS = CheckpointPlan(Origin("", ""), Path("/nonexistent"), Path("/nonexistent"), interval_s=0)
FEATURES = np.random.default_rng(0).normal([1e4, -3, 0], [1e3, 1e-3, 1], size=(400, 3)).astype(np.float32)
TARGETS = (5e6 + 2e3 * FEATURES[:, :1]).astype(np.float32)
SPEC = regression(
    network=network(linear(1)),
    input_scaling=pb.SCALING_STANDARDIZE,
    standardize_target=True,
    optimizer=pb.Optimizer(learning_rate=0.01, adam=pb.Adam()),
    max_epochs=60,
)


@pytest.mark.parametrize("loss", [pb.LOSS_MEAN_SQUARED_ERROR, pb.LOSS_MEAN_ABSOLUTE_ERROR, pb.LOSS_HUBER])
def test_raw_rows_in_answers_in_the_targets_unit_out(loss: pb.Loss.ValueType) -> None:
    spec = pb.TrainingSpec()
    spec.CopyFrom(SPEC)
    spec.loss = loss
    checked, rows = check_spec(spec, table(400)), Table(FEATURES, TARGETS)
    with UpdateStream(os.open(os.devnull, os.O_WRONLY)) as nobody:
        served = fit(checked, rows, split_rows(rows, checked.spec.split), CPU, nobody, StopRequest(), NO_CHECKPOINTS)
    error = predict(served, FEATURES) - TARGETS
    assert np.abs(error).max() < 0.05 * TARGETS.std()


def test_what_nobody_foresaw_is_the_trainings_fault_and_named() -> None:
    """Here: updates that cannot be written, because the stream was closed."""
    checked, rows = check_spec(SPEC, table(400)), Table(FEATURES, TARGETS)
    reading, writing = os.pipe()
    os.close(reading)
    with UpdateStream(writing) as stream:
        pass
    with pytest.raises(TrainingRaised, match=r"ValueError: .*closed file") as caught:
        fit(checked, rows, split_rows(rows, checked.spec.split), CPU, stream, StopRequest(), NO_CHECKPOINTS)
    assert not is_foreseen(caught.value)
