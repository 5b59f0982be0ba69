"""Bit-exact resume: trainers killed at random moments, each going on from the last one's checkpoint.

Every run draws other moments. The seed is in the output; given as MODELYARD_TEST_SEED it repeats them, as far as a
machine repeats anything. MODELYARD_TEST_KILLS makes it more kills than the few that CI has time for.
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import secrets
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from modelyard.v1.training_job_pb2 import TrainingJob
from support import interrupted_training
from support.interrupted_training import CASES, ENDLESS, Trainer
from support.waiting import eventually_sync


@pytest.fixture
def chance() -> random.Random:
    seed = os.environ.get("MODELYARD_TEST_SEED") or secrets.token_hex(4)
    print(f"MODELYARD_TEST_SEED={seed}")
    return random.Random(seed)


KILLS = int(os.environ.get("MODELYARD_TEST_KILLS", "2"))
"""Of each training."""


def steps_told(trainer: Trainer) -> list[int]:
    return [update.progress.step for update in trainer.updates if update.HasField("progress")]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CASES)
def test_killed_again_and_again_it_ends_in_the_same_model(tmp_path: Path, name: str, chance: random.Random) -> None:
    """SIGTERM first, so that there is something to go on from; then whatever comes."""
    case = CASES[name]
    reference, seconds = interrupted_training.train_in_peace(tmp_path / "peace", case)
    signals = [signal.SIGTERM, *chance.choices([signal.SIGTERM, signal.SIGKILL], k=KILLS - 1)]
    trainers = interrupted_training.train_with_kills(tmp_path / "kills", case, chance, signals, seconds / (KILLS + 1))
    assert interrupted_training.same_model(reference, trainers[-1])
    assert trainers[-1].result.succeeded.digest == reference.result.succeeded.digest
    assert trainers[-1].result.succeeded.evaluation == reference.result.succeeded.evaluation
    assert steps_told(trainers[-1])[-1] == steps_told(reference)[-1]
    for before, after in pairwise(trainers):
        newest = before.newest_checkpoint
        if newest is not None:
            assert f"going on from the checkpoint after step {int(newest.stem):,};" in after.output
            assert all(step >= int(newest.stem) for step in steps_told(after))
        assert len(list((before.folder / "checkpoints").glob("0*"))) <= 2
    assert "going on from the checkpoint" in trainers[1].output


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """The job `sgd`, left in peace."""
    return interrupted_training.train_in_peace(tmp_path_factory.mktemp("peace") / "job", CASES["sgd"])[0]


def stopped(folder: Path) -> Path:
    """The checkpoint of that job, stopped soon after it began."""
    trainer = interrupted_training.start(folder, CASES["sgd"], interval_s=0)
    trainer.wait_for_training()
    os.kill(trainer.process.pid or 0, signal.SIGTERM)
    assert trainer.end() == 143, trainer.output
    newest = trainer.newest_checkpoint
    assert newest is not None
    return newest


def test_a_damaged_checkpoint_is_not_used_and_the_model_is_the_same(tmp_path: Path, reference: Trainer) -> None:
    checkpoint = stopped(tmp_path / "first")
    content = bytearray(checkpoint.read_bytes())
    content[-1] ^= 1
    checkpoint.write_bytes(content)
    trainer = interrupted_training.start(tmp_path / "second", CASES["sgd"], interval_s=0, resume_from=checkpoint)
    assert trainer.end() == 0, trainer.output
    assert "the checkpoint is not used: it is broken" in trainer.output
    assert interrupted_training.same_model(reference, trainer)


def test_a_full_disk_costs_checkpoints_and_not_the_training(tmp_path: Path, reference: Trainer) -> None:
    """The limit on a file's size stands for the disk's: lifted in the middle, checkpoints come."""
    trainer = interrupted_training.start(tmp_path / "job", ENDLESS, interval_s=0.05, largest_file=4096)
    pid = trainer.process.pid or 0
    eventually_sync(lambda: trainer.output.count("no checkpoint of step") >= 2, timeout=60)
    assert list((trainer.folder / "checkpoints").iterdir()) == []
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    eventually_sync(lambda: trainer.has_told("checkpoint"), timeout=60)
    os.kill(pid, signal.SIGTERM)
    assert trainer.end() == 143, trainer.output
    assert trainer.newest_checkpoint is not None


def test_a_trainer_lost_in_the_export_leaves_the_end_of_the_training(tmp_path: Path, reference: Trainer) -> None:
    lost = interrupted_training.start(tmp_path / "lost", CASES["sgd"], interval_s=0.001)
    eventually_sync(lambda: lost.has_told("evaluation"), timeout=120)
    lost.process.kill()
    lost.end()
    newest = lost.newest_checkpoint
    assert newest is not None
    assert int(newest.stem) == steps_told(reference)[-1]
    trainer = interrupted_training.start(tmp_path / "next", CASES["sgd"], interval_s=60, resume_from=newest)
    assert trainer.end() == 0, trainer.output
    assert steps_told(trainer) == [int(newest.stem)]
    states = [update.state for update in trainer.updates if update.HasField("state")]
    assert states[-1] == TrainingJob.STATE_EXPORTING
    assert interrupted_training.same_model(reference, trainer)
    digest = hashlib.sha256((trainer.folder / "model.onnx").read_bytes()).hexdigest()
    assert trainer.result.succeeded.digest == digest
