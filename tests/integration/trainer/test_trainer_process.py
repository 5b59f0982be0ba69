"""The trainer as its parent meets it: a process, a folder, a stream of updates."""

from __future__ import annotations

import hashlib
import signal
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_digits

from modelyard.training import recipes
from modelyard.v1 import training_spec_pb2 as pb
from modelyard.v1.dataset_pb2 import Dataset
from modelyard.v1.training_job_pb2 import TrainingJob
from modelyard.v1.training_spec_pb2 import TrainingSpec
from support import trainer_folders
from support.diabetes import ROW, write_diabetes
from support.training_specs import flatten, linear, network, regression

ALL_STATES = ["PREPARING", "RUNNING", "EVALUATING", "EXPORTING"]


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_diabetes(tmp_path_factory.mktemp("data") / "diabetes.csv").read_bytes()


def csv(rows: list[str], header: str = "a,b,c,y") -> bytes:
    return "\n".join([header, *rows, ""]).encode()


def numbers(rows: int, seed: int = 0) -> list[str]:
    """Rows of `a,b,c,y` where y = a - 2 b + noise."""
    values = np.random.default_rng(seed).normal(size=(rows, 4))
    values[:, 3] = values[:, 0] - 2 * values[:, 1] + values[:, 3] / 10
    return [",".join(f"{value:.6f}" for value in row) for row in values]


def endless(**changes: object) -> TrainingSpec:
    """A training that ends when somebody ends it."""
    return regression(max_epochs=1_000_000, **changes)


def test_diabetes_is_trained_exported_and_as_good_as_a_linear_model(tmp_path: Path, diabetes: bytes) -> None:
    spec = recipes.builtin_recipe("diabetes")
    ended = trainer_folders.run(trainer_folders.prepare(tmp_path / "job", spec, diabetes, Dataset.FORMAT_CSV))
    assert (ended.exit_code, ended.states) == (0, ALL_STATES), ended.output
    artifact = ended.result.succeeded
    content = (ended.folder / "model.onnx").read_bytes()
    assert (artifact.digest, artifact.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    metrics, baseline = artifact.evaluation.metrics, artifact.evaluation.baseline_metrics
    assert set(metrics) == set(baseline) == {"r2", "rmse", "mae"}
    assert metrics["r2"] >= baseline["r2"] - 0.05
    assert artifact.parity.max_relative_error <= 1e-4
    assert list(artifact.parity.batch_sizes) == [1, 2, 7, 64]
    assert artifact.parity.rows >= 256
    assert {"torch", "onnx", "onnxruntime", "python"} <= set(artifact.library_versions)

    session = onnxruntime.InferenceSession(content)
    (prediction,) = session.run(["prediction"], {"input": ROW})
    assert prediction.shape == (1, 1)
    assert 25 < prediction.item() < 346  # the target's own unit and range

    progress = [update.progress for update in ended.updates if update.HasField("progress")]
    last = progress[-1]
    assert last.epoch == last.best_epoch + spec.early_stopping.patience or last.epoch == spec.max_epochs
    assert last.step % last.epoch == 0
    assert last.rows_per_second > 0
    assert 0 < last.best_validation_loss <= last.validation_loss
    evaluations = [update.evaluation for update in ended.updates if update.HasField("evaluation")]
    assert evaluations == [artifact.evaluation]
    assert artifact.evaluation.baseline == "linear least squares"
    for said in ("442 rows", "1,101 parameters", "ONNX Runtime agrees"):
        assert said in ended.output


@pytest.mark.slow
def test_digits_are_read_with_an_accuracy_of_97_percent(tmp_path: Path) -> None:
    spec = recipes.builtin_recipe("digits")
    content = trainer_folders.digits_npz()
    ended = trainer_folders.run(trainer_folders.prepare(tmp_path / "job", spec, content, Dataset.FORMAT_NPZ))
    assert (ended.exit_code, ended.states) == (0, ALL_STATES), ended.output
    evaluation = ended.result.succeeded.evaluation
    assert evaluation.metrics["accuracy"] >= 0.97
    assert set(evaluation.metrics) == set(evaluation.baseline_metrics) == {"accuracy", "macro_f1", "log_loss"}

    data = load_digits()
    session = onnxruntime.InferenceSession(ended.folder / "model.onnx")
    (logits,) = session.run(["logits"], {"input": data.images[:200, np.newaxis].astype(np.float32)})
    assert (logits.argmax(axis=1) == data.target[:200]).mean() >= 0.97


def test_the_same_spec_and_data_give_the_same_digest_in_another_folder(tmp_path: Path) -> None:
    """With dropout and batch normalisation, so that every source of chance takes part."""
    layers = [linear(16), pb.Layer(batch_norm=pb.BatchNormLayer()), pb.Layer(activation=pb.ACTIVATION_GELU)]
    layers += [pb.Layer(dropout=pb.DropoutLayer(rate=0.3)), linear(1)]
    spec = regression(network=network(*layers), seed=2**64 - 1)
    folders = [tmp_path / "a", tmp_path / "elsewhere" / "b"]
    content = csv(numbers(200))
    for folder in folders:
        trainer_folders.prepare(folder, spec, content, Dataset.FORMAT_CSV)
    first, second = (trainer_folders.run(folder).result.succeeded.digest for folder in folders)
    assert first == second != ""


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*numbers(60), "1,2,3,nan"], "target_column: column 'y' has 1 values that are not a number"),
        ([*numbers(60), "1,2,,4"], "feature_columns[2]: column 'c' has 1 missing values"),
        ([*numbers(60), "1,oops,3,4"], "first 'oops' in row 61"),
        (numbers(9), "datasets/table has 9 rows; 14 or more are needed"),
    ],
)
def test_bad_data_fail_the_job_and_not_the_trainer(tmp_path: Path, rows: list[str], said: str) -> None:
    folder = trainer_folders.prepare(tmp_path / "job", regression(), csv(rows), Dataset.FORMAT_CSV, checked=False)
    ended = trainer_folders.run(folder)
    assert (ended.exit_code, ended.states) == (0, ["PREPARING"])
    assert ended.result.failed.reason == TrainingJob.FAILURE_REASON_DATA
    assert said in ended.result.failed.message
    assert f"failed: {ended.result.failed.message}" in ended.output
    assert "Traceback" not in ended.output
    assert not (folder / "model.onnx").exists()


def test_a_learning_rate_that_is_too_high_is_called_diverged(tmp_path: Path) -> None:
    spec = endless(optimizer=pb.Optimizer(learning_rate=1e6, sgd=pb.Sgd()))
    folder = trainer_folders.prepare(tmp_path / "job", spec, csv(numbers(100)), Dataset.FORMAT_CSV)
    ended = trainer_folders.run(folder)
    assert (ended.exit_code, ended.states) == (0, ["PREPARING", "RUNNING"])
    assert ended.result.failed.reason == TrainingJob.FAILURE_REASON_DIVERGED
    assert "smaller learning rate" in ended.result.failed.message


def test_a_gate_that_is_not_passed_rejects_the_result(tmp_path: Path) -> None:
    gate = pb.MetricGate(metric="r2", minimum=0.9999)
    spec = regression(publication=pb.Publication(gates=[gate]))
    folder = trainer_folders.prepare(tmp_path / "job", spec, csv(numbers(100)), Dataset.FORMAT_CSV)
    ended = trainer_folders.run(folder)
    assert (ended.exit_code, ended.states) == (0, ["PREPARING", "RUNNING", "EVALUATING"])
    assert ended.result.failed.reason == TrainingJob.FAILURE_REASON_GATE_REJECTED
    assert "at least 0.9999 is asked for" in ended.result.failed.message
    assert not (folder / "model.onnx").exists()


def test_a_network_that_does_not_fit_into_memory_is_called_out_of_memory(tmp_path: Path) -> None:
    """All rows at once through 65,536 channels of 129 x 129 ask for more bytes than a process has addresses."""
    grow = pb.Layer(conv2d=pb.Conv2dLayer(out_channels=65_536, kernel_size=1, padding=64))
    shrink = pb.Layer(max_pool2d=pb.MaxPool2dLayer(kernel_size=64))
    spec = regression(
        network=network(grow, shrink, flatten(), linear(1), input_shape=[1, 1, 1]),
        optimizer=pb.Optimizer(learning_rate=0.1, gradient_descent=pb.GradientDescent()),
    )
    rows = [f"{row},{row % 7}" for row in range(60_000)]
    folder = trainer_folders.prepare(tmp_path / "job", spec, csv(rows, "a,y"), Dataset.FORMAT_CSV)
    ended = trainer_folders.run(folder)
    assert ended.exit_code == 0
    assert ended.result.failed.reason == TrainingJob.FAILURE_REASON_OUT_OF_MEMORY


def test_sigterm_stops_between_two_steps_without_a_result(tmp_path: Path) -> None:
    folder = trainer_folders.prepare(tmp_path / "job", endless(), csv(numbers(100)), Dataset.FORMAT_CSV)
    with trainer_folders.started(folder) as trainer:
        trainer.wait_for(lambda update: update.progress.step > 0)
        trainer.process.send_signal(signal.SIGTERM)
        ended = trainer.end()
    assert ended.exit_code == 143
    assert not (folder / "result.json").exists()
    assert "Traceback" not in ended.output


def test_ctrl_c_is_left_to_the_parent(tmp_path: Path) -> None:
    folder = trainer_folders.prepare(tmp_path / "job", endless(), csv(numbers(100)), Dataset.FORMAT_CSV)
    with trainer_folders.started(folder) as trainer:
        before = trainer.wait_for(lambda update: update.progress.epoch > 0).progress.epoch
        trainer.process.send_signal(signal.SIGINT)
        after = trainer.wait_for(lambda update: update.progress.epoch > before + 100)
    assert after.progress.epoch > before + 100


def test_a_trainer_whose_updates_nobody_reads_ends(tmp_path: Path) -> None:
    folder = trainer_folders.prepare(tmp_path / "job", endless(), csv(numbers(100)), Dataset.FORMAT_CSV)
    with trainer_folders.started(folder) as trainer:
        trainer.wait_for(lambda update: update.progress.step > 0)
        trainer.close_events()
        assert trainer.process.wait(timeout=60) == 143
    assert not (folder / "result.json").exists()
