"""Bit for bit: a training that is taken to a file and back, anywhere and often, ends as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelyard.v1 import training_spec_pb2 as pb
from modelyard_workers.trainer.checkpoint_file import (
    Checkpoint,
    CheckpointUnusable,
    Origin,
    read_checkpoint,
    write_checkpoint,
)
from modelyard_workers.trainer.early_stopping import BestEpoch
from modelyard_workers.trainer.loop import Rows, ShuffledBatches, TrainingState, train
from modelyard_workers.trainer.losses import LOSSES
from modelyard_workers.trainer.optimizers import build_optimizer
from modelyard_workers.trainer.progress import ProgressMeter
from modelyard_workers.trainer.saving import CheckpointSaver
from modelyard_workers.trainer.snapshots import differences, environment, restore_snapshot, take_snapshot
from modelyard_workers.trainer.stopping import Stopped, StopRequest

ORIGIN = Origin("spec", "data")
ROWS = 70
EPOCHS = 6
OPTIMIZERS = {
    "gradient_descent": pb.Optimizer(learning_rate=0.05, gradient_descent=pb.GradientDescent()),
    "sgd": pb.Optimizer(learning_rate=0.05, sgd=pb.Sgd(), weight_decay=0.01),
    "momentum": pb.Optimizer(learning_rate=0.02, momentum=pb.Momentum(momentum=0.9)),
    "nesterov": pb.Optimizer(learning_rate=0.02, nesterov=pb.Nesterov(momentum=0.9)),
    "adam": pb.Optimizer(learning_rate=0.01, adam=pb.Adam(beta1=0.9, beta2=0.99, epsilon=1e-8)),
    "adamw": pb.Optimizer(learning_rate=0.01, adamw=pb.AdamW(beta1=0.9, beta2=0.99, epsilon=1e-8), weight_decay=0.1),
}


class StopAfter(StopRequest):
    """Stops when it has been asked so often: once after each step and after each part of an evaluation."""

    def __init__(self, checks: int) -> None:
        super().__init__()
        self._left = checks

    def check(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Stopped


def rows(count: int, seed: int) -> Rows:
    """Images of 1 x 4 x 4 and a number that depends on them."""
    features = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return Rows(features, features.flatten(1)[:, :2].sum(1, keepdim=True).tanh())


def network(kind: str) -> nn.Module:
    if kind == "layers":
        layers = [nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 1)]
    else:
        layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        layers += [nn.Dropout(0.3), nn.Linear(16, 1)]
    return nn.Sequential(*layers)


def begin(kind: str = "layers", optimizer: str = "adam", patience: int = 2) -> TrainingState:
    torch.manual_seed(5)
    built = network(kind)
    return TrainingState(
        network=built,
        optimizer=build_optimizer(OPTIMIZERS[optimizer], built.parameters()),
        batches=ShuffledBatches(ROWS, ROWS if optimizer == "gradient_descent" else 16, seed=3),
        best=BestEpoch(pb.EarlyStopping(patience=patience, min_delta=1e-3) if patience else None),
    )


def run(state: TrainingState, stop: StopRequest | None = None) -> None:
    meter = ProgressMeter(lambda progress: None, max_epochs=EPOCHS, rows_per_epoch=ROWS)
    saver = CheckpointSaver(Path("/nonexistent"), ORIGIN, lambda message: None, interval_s=0)
    loss_of = LOSSES[pb.LOSS_MEAN_SQUARED_ERROR]
    train(state, rows(ROWS, 0), rows(30, 1), loss_of, EPOCHS, meter, saver, stop or StopRequest())


def bits(state: TrainingState) -> dict[str, object]:
    """All that a training is, to be compared with `==`."""
    snapshot = take_snapshot(state)
    tensors = {name: (tensor.dtype, tensor.numpy().tobytes()) for name, tensor in snapshot.tensors.items()}
    return tensors | dict(snapshot.document)


@settings(max_examples=40)
@given(
    kind=st.sampled_from(["layers", "cnn"]),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    patience=st.integers(0, 3),
    pauses=st.lists(st.integers(1, 20), min_size=1, max_size=6),
)
def test_a_training_taken_to_a_file_and_back_ends_in_the_same_bits(
    tmp_path_factory: pytest.TempPathFactory, kind: str, optimizer: str, patience: int, pauses: list[int]
) -> None:
    whole = begin(kind, optimizer, patience)
    run(whole)
    path = tmp_path_factory.getbasetemp() / "snapshot"
    state = begin(kind, optimizer, patience)
    for checks in pauses:
        try:
            run(state, StopAfter(checks))
        except Stopped:
            write_checkpoint(path, ORIGIN, take_snapshot(state))
            state = begin(kind, optimizer, patience)
            torch.manual_seed(1234)
            torch.rand(7)  # a new process has drawn other numbers
            restore_snapshot(state, read_checkpoint(path, ORIGIN))
    run(state)
    assert bits(state) == bits(whole)


def test_a_stop_within_an_evaluation_is_as_good_as_one_before_it() -> None:
    """The epoch's last step is done, its losses are not: 5 steps, then the evaluation's check."""
    state = begin()
    with pytest.raises(Stopped):
        run(state, StopAfter(6))
    assert (state.epoch, state.step, state.batches.position) == (0, 5, 5)
    snapshot = take_snapshot(state)
    again = begin()
    restore_snapshot(again, snapshot)
    run(again)
    whole = begin()
    run(whole)
    assert bits(again) == bits(whole)


def test_a_snapshot_does_not_change_with_the_training() -> None:
    state = begin()
    with pytest.raises(Stopped):
        run(state, StopAfter(8))
    snapshot = take_snapshot(state)
    before = {name: tensor.clone() for name, tensor in snapshot.tensors.items()}
    run(state)
    for name, tensor in snapshot.tensors.items():
        assert torch.equal(tensor, before[name]), name


def test_the_number_of_threads_comes_back() -> None:
    """Several threads add up in another order than one."""
    state = begin()
    with pytest.raises(Stopped):
        run(state, StopAfter(3))
    torch.set_num_threads(2)
    snapshot = take_snapshot(state)
    torch.set_num_threads(1)
    restore_snapshot(begin(), snapshot)
    assert torch.get_num_threads() == 2


def test_another_environment_is_told_apart() -> None:
    """Not a reason to lose the work of days; but the log says that bits may differ."""
    here = torch.device("cpu")
    same = Checkpoint({}, {"environment": environment(here)})
    other = Checkpoint({}, {"environment": environment(here) | {"torch": "2.0.0", "python": "3.8.1"}})
    assert differences(same, here) == []
    assert differences(other, here) == [f"torch 2.0.0, now {torch.__version__}"]


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, document: tensors.pop("loss_sum"),
        lambda tensors, document: tensors.pop("optimizer.mean.0"),
        lambda tensors, document: tensors.update({"network.5.bias": torch.zeros(2)}),
        lambda tensors, document: tensors.update({"network.5.bias": torch.zeros(1, dtype=torch.float64)}),
        lambda tensors, document: tensors.update({"best.5.bias": torch.zeros(2)}),
        lambda tensors, document: tensors.update({"random.cpu": torch.zeros(3, dtype=torch.uint8)}),
        lambda tensors, document: document.pop("best"),
        lambda tensors, document: document.update({"threads": "many"}),
    ],
)
def test_what_does_not_fit_is_not_made_to(change: object) -> None:
    state = begin()
    with pytest.raises(Stopped):
        run(state, StopAfter(8))
    snapshot = take_snapshot(state)
    tensors, document = dict(snapshot.tensors), dict(snapshot.document)
    assert callable(change)
    change(tensors, document)
    with pytest.raises(CheckpointUnusable, match="it does not fit"):
        restore_snapshot(begin(), Checkpoint(tensors, document))
