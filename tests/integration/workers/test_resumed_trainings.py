"""The worker and its built-in trainer together: a training that was paused ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.training import check_spec
from modelyard.v1 import worker_service_pb2 as pb
from modelyard.v1.dataset_pb2 import Dataset
from modelyard.v1.training_job_pb2 import Checkpoint, TrainingAttempt, TrainingJob
from modelyard_workers.bell import Bell
from modelyard_workers.doorbell import answer_doorbell
from modelyard_workers.settings import BUILT_IN_TRAINER, WorkerSettings
from support.concurrency import meanwhile
from support.diabetes import short_training, write_diabetes
from support.trainer_folders import describe
from support.waiting import eventually_sync
from support.worker_surroundings import Surroundings

EPOCHS = 400


@pytest.fixture
def bell() -> Iterator[Bell]:
    bell = Bell()
    yield bell
    bell.close()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_diabetes(tmp_path / "diabetes.csv")


def offer(surroundings: Surroundings, table: Path, job_id: str, checkpoint: Checkpoint | None = None) -> str:
    """A job of some hundred epochs; answers its name."""
    dataset = describe(table, Dataset.FORMAT_CSV, "datasets/diabetes")
    dataset.digest = surroundings.store.put(table.read_bytes())
    spec = short_training(model="m", epochs=EPOCHS)
    spec.ClearField("early_stopping")
    job = TrainingJob(
        name=f"trainingJobs/{job_id}", attempt=2 if checkpoint else 1, spec=check_spec(spec, dataset).spec,
        checkpoint=checkpoint,
    )  # fmt: skip
    return surroundings.gateway.offer(job, dataset)


def settings(surroundings: Surroundings, host: str) -> WorkerSettings:
    """Of a worker with a disk of its own."""
    return surroundings.settings(
        trainer_command=BUILT_IN_TRAINER, work_dir=surroundings.folder / host, checkpoint_interval_s=0,
        trainer_grace_s=50,
    )  # fmt: skip


def test_a_paused_training_goes_on_at_another_worker_and_ends_in_the_same_weights(
    surroundings: Surroundings, table: Path, bell: Bell
) -> None:
    gateway = surroundings.gateway
    undisturbed = offer(surroundings, table, "undisturbed")
    answer_doorbell(undisturbed, settings(surroundings, "one"), bell)
    gateway.updates.clear()

    def pause() -> None:
        eventually_sync(lambda: any(update.HasField("progress") for update in gateway.updates))
        gateway.directive = pb.ReportTrainingJobResponse.DIRECTIVE_PAUSE

    name = offer(surroundings, table, "paused")
    with meanwhile(pause):
        answer_doorbell(name, settings(surroundings, "one"), bell)
    assert gateway.finished[name].released.cause == TrainingAttempt.END_CAUSE_PAUSED, gateway.finished[name]
    saved = gateway.checkpoints[-1]
    assert saved.step > 0

    gateway.directive = pb.ReportTrainingJobResponse.DIRECTIVE_CONTINUE
    offer(surroundings, table, "paused", saved)
    answer_doorbell(name, settings(surroundings, "another"), bell)
    assert any(f"after step {saved.step:,}" in line for line in gateway.log_lines)
    assert gateway.finished[name].succeeded.digest == gateway.finished[undisturbed].succeeded.digest != ""
