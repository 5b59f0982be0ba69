"""Where a training begins: what cannot be used is said, and never used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from modelyard.v1 import training_spec_pb2 as pb
from modelyard_workers.trainer.checkpoint_file import Origin, write_checkpoint
from modelyard_workers.trainer.early_stopping import BestEpoch
from modelyard_workers.trainer.loop import ShuffledBatches, TrainingState
from modelyard_workers.trainer.optimizers import build_optimizer
from modelyard_workers.trainer.resuming import CheckpointPlan, begin_or_resume
from modelyard_workers.trainer.snapshots import take_snapshot

CPU = torch.device("cpu")
ORIGIN = Origin("spec", "data")


def begin() -> TrainingState:
    torch.manual_seed(3)
    network = nn.Linear(2, 1)
    optimizer = build_optimizer(pb.Optimizer(learning_rate=0.1, sgd=pb.Sgd()), network.parameters())
    return TrainingState(network, optimizer, ShuffledBatches(10, 2, seed=0), BestEpoch(None))


def plan(folder: Path) -> CheckpointPlan:
    return CheckpointPlan(ORIGIN, folder / "checkpoint.safetensors", folder / "checkpoints", interval_s=0)


def saved(folder: Path, origin: Origin = ORIGIN) -> TrainingState:
    """A state other than the first, in the file to go on from."""
    state = begin()
    torch.nn.init.constant_(state.network.get_parameter("weight"), 4.0)
    state.step = 9
    torch.rand(5)
    write_checkpoint(plan(folder).resume_from, origin, take_snapshot(state))
    return state


def test_without_a_checkpoint_a_training_begins(tmp_path: Path) -> None:
    assert begin_or_resume(begin, plan(tmp_path), CPU).step == 0


def test_with_one_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = saved(tmp_path)
    expected = torch.rand(3)
    state = begin_or_resume(begin, plan(tmp_path), CPU)
    assert state.step == 9
    assert torch.equal(state.network.get_parameter("weight"), before.network.get_parameter("weight"))
    assert torch.equal(torch.rand(3), expected)
    assert "going on from the checkpoint after step 9" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["broken", "other spec", "other dataset", "does not fit"])
def test_one_that_cannot_be_used_is_said_and_the_training_begins_as_if_there_were_none(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = begin().network.get_parameter("weight").detach().clone(), torch.rand(3)
    saved(tmp_path, {"other spec": Origin("?", "data"), "other dataset": Origin("spec", "?")}.get(damage, ORIGIN))
    path = plan(tmp_path).resume_from
    if damage == "broken":
        path.write_bytes(path.read_bytes()[:-1])
    if damage == "does not fit":
        state = begin()
        state.network = nn.Linear(2, 3)
        write_checkpoint(path, ORIGIN, take_snapshot(state))
    state = begin_or_resume(begin, plan(tmp_path), CPU)
    assert state.step == 0
    assert torch.equal(state.network.get_parameter("weight"), expected[0])
    assert torch.equal(torch.rand(3), expected[1])
    assert "the checkpoint is not used: it " in capsys.readouterr().out
