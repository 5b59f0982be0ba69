"""Trainers that are started ahead: warm, handed one job, replaced when they died."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format

from modelyard.training import recipes
from modelyard.v1.dataset_pb2 import Dataset
from modelyard.v1.worker_service_pb2 import FinishTrainingJobRequest
from modelyard_workers.bell import Bell
from modelyard_workers.interruptions import Interruptions
from modelyard_workers.settings import BUILT_IN_TRAINER
from modelyard_workers.supervision import supervise
from modelyard_workers.trainer_process import TrainerProcess
from modelyard_workers.trainers import Trainers
from support import trainer_folders
from support.diabetes import write_diabetes
from support.waiting import eventually_sync


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """A short job's folder."""
    spec = recipes.builtin_recipe("diabetes")
    spec.max_epochs = 2
    content = write_diabetes(tmp_path / "diabetes.csv").read_bytes()
    folder = trainer_folders.prepare(tmp_path / "job", spec, content, Dataset.FORMAT_CSV)
    (folder / "tmp").mkdir()
    return folder


@pytest.fixture
def trainers() -> Iterator[Trainers]:
    trainers = Trainers(BUILT_IN_TRAINER, ahead=True)
    yield trainers
    trainers.close()


def waiting_pid(trainers: Trainers) -> int:
    trainers.prepare()
    assert trainers._waiting is not None
    return trainers._waiting.pid


def run_to_the_end(process: TrainerProcess, workdir: Path) -> FinishTrainingJobRequest:
    bell = Bell()
    end = supervise(process, lambda update: None, Interruptions(bell), grace_s=5)
    process.close()
    bell.close()
    assert end.code == 0, end.stderr_tail
    return json_format.Parse((workdir / "result.json").read_text(), FinishTrainingJobRequest())


def test_a_trainer_that_was_started_ahead_does_the_next_job(trainers: Trainers, workdir: Path) -> None:
    pid = waiting_pid(trainers)
    process = trainers.start(workdir)
    assert process.pid == pid
    assert run_to_the_end(process, workdir).HasField("succeeded")


def test_a_trainer_that_died_while_waiting_is_replaced(trainers: Trainers, workdir: Path) -> None:
    pid = waiting_pid(trainers)
    os.kill(pid, signal.SIGKILL)
    assert trainers._waiting is not None
    eventually_sync(trainers._waiting.exited)
    process = trainers.start(workdir)
    assert process.pid != pid
    assert run_to_the_end(process, workdir).HasField("succeeded")


def test_both_ways_give_the_same_artifact(trainers: Trainers, workdir: Path) -> None:
    trainers.prepare()
    warm = run_to_the_end(trainers.start(workdir), workdir)
    cold = run_to_the_end(trainers.start(workdir), workdir)
    assert warm.succeeded.digest == cold.succeeded.digest


def test_preparing_twice_keeps_one_and_closing_ends_it(trainers: Trainers) -> None:
    pid = waiting_pid(trainers)
    assert waiting_pid(trainers) == pid
    trainers.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_waiting_trainer_ends_when_nobody_can_give_it_a_job(trainers: Trainers) -> None:
    trainers.prepare()
    waiting = trainers._waiting
    assert waiting is not None
    assert waiting._process.stdin is not None
    waiting._process.stdin.close()
    eventually_sync(waiting.exited)
    assert waiting.reap() == 0
