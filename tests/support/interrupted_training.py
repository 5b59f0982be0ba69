"""One job trained by many trainers, each killed at some moment, beside the same job left in peace.

Needs no more packages than a trainer does, so that it also runs on a machine with a GPU that has not much else. As a
program it trains its cases, says what happened, and ends with 1 if a result differs:

    PYTHONPATH=services:workers:tests python -m support.interrupted_training [--seed N] [CASE …]
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
from google.protobuf import json_format

from modelyard.training import check_spec
from modelyard.v1 import training_spec_pb2 as pb
from modelyard.v1.dataset_pb2 import Dataset
from modelyard.v1.training_job_pb2 import TrainingJob
from modelyard.v1.worker_service_pb2 import FinishTrainingJobRequest, TrainingUpdate

from .training_specs import classification, linear, network, pictures, regression, table
from .waiting import eventually_sync

LIMIT_S = 300
"""For one trainer to end in: generous, machines are busy."""

_processes = multiprocessing.get_context("forkserver")
# Imported once, by the server that trainers are forked from, which must not touch CUDA; the second list may.
_PRELOADED = ["modelyard_workers.trainer.run"]
if not Path("/dev/nvidiactl").exists():
    _PRELOADED += ["onnxruntime", "torch._dynamo", "onnxscript"]
_processes.set_forkserver_preload(_PRELOADED)


@dataclass(frozen=True, slots=True)
class Case:
    """A job: its spec, its dataset and the dataset's content (NPZ)."""

    spec: pb.TrainingSpec
    dataset: Dataset
    content: bytes


def _npz(**columns: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **columns)  # type: ignore[arg-type]  # arrays
    return buffer.getvalue()


def _on_table(optimizer: pb.Optimizer, *layers: pb.Layer, rows: int = 600, **changes: object) -> Case:
    values = np.random.default_rng(0).normal(size=(rows, 4))
    values[:, 3] = values[:, 0] - 2 * values[:, 1] * values[:, 2] + values[:, 3] / 10
    dataset = table(rows)
    dataset.format = Dataset.FORMAT_NPZ
    spec = regression(network=network(*layers), optimizer=optimizer, **changes)
    return Case(spec, dataset, _npz(**dict(zip("abcy", values.T, strict=True))))


def _with_chance(optimizer: pb.Optimizer, epochs: int = 100) -> Case:
    """Batch normalisation, dropout and early stopping: everything that has a memory of its own."""
    layers = [linear(16), pb.Layer(batch_norm=pb.BatchNormLayer()), pb.Layer(activation=pb.ACTIVATION_GELU)]
    layers += [pb.Layer(dropout=pb.DropoutLayer(rate=0.3)), linear(1)]
    stopping = pb.EarlyStopping(patience=epochs // 3)
    return _on_table(optimizer, *layers, max_epochs=epochs, early_stopping=stopping)


def _on_pictures() -> Case:
    random_numbers = np.random.default_rng(0)
    labels = np.arange(500) % 10
    images = (
        random_numbers.integers(0, 8, size=(500, 8, 8))
        + (np.arange(64).reshape(8, 8) % 10 == labels[:, None, None]) * 8
    )
    dataset = pictures(500)
    spec = classification(
        network=pb.Network(small_cnn=pb.SmallCnn(channels=[8, 16], outputs=10, dropout=0.2)),
        optimizer=pb.Optimizer(learning_rate=0.003, adamw=pb.AdamW(), weight_decay=0.01),
        max_epochs=15,
    )
    return Case(spec, dataset, _npz(image=images.astype(np.uint8), label=labels))


def _on_threads() -> Case:
    """Steps so large that several threads share them."""
    layers = [linear(1200), pb.Layer(activation=pb.ACTIVATION_TANH), linear(1200), linear(1)]
    return _on_table(pb.Optimizer(learning_rate=1e-4, adam=pb.Adam()), *layers, max_epochs=6)


def _without_end(spec: pb.TrainingSpec) -> pb.TrainingSpec:
    endless = pb.TrainingSpec()
    endless.CopyFrom(spec)
    endless.max_epochs = 1_000_000
    endless.ClearField("early_stopping")
    return endless


CASES = {
    "gradient_descent": _with_chance(pb.Optimizer(learning_rate=0.05, gradient_descent=pb.GradientDescent()), 400),
    "sgd": _with_chance(pb.Optimizer(learning_rate=0.02, weight_decay=1e-4, sgd=pb.Sgd())),
    "momentum": _with_chance(pb.Optimizer(learning_rate=0.01, momentum=pb.Momentum())),
    "nesterov": _with_chance(pb.Optimizer(learning_rate=0.01, nesterov=pb.Nesterov())),
    "adam": _with_chance(pb.Optimizer(learning_rate=0.005, adam=pb.Adam())),
    "adamw": _with_chance(pb.Optimizer(learning_rate=0.005, weight_decay=0.1, adamw=pb.AdamW())),
    "small_cnn": _on_pictures(),
    "threads": _on_threads(),
}


ENDLESS = dataclasses.replace(CASES["sgd"], spec=_without_end(CASES["sgd"].spec))
"""A training that ends when somebody ends it."""


@dataclass(slots=True)
class Trainer:
    """One trainer at work in its folder, as its parent sees it."""

    folder: Path
    process: ForkServerProcess

    @property
    def updates(self) -> list[TrainingUpdate]:
        """What it has told so far."""
        lines = (self.folder / "events").read_text().splitlines(keepends=True)
        return [json_format.Parse(line, TrainingUpdate()) for line in lines if line.endswith("\n")]

    def has_told(self, kind: str) -> bool:
        """Whether it has told an update of this kind, such as `progress`."""
        return f'{{"{kind}":' in (self.folder / "events").read_text()

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return (self.folder / "output").read_text()

    @property
    def newest_checkpoint(self) -> Path | None:
        """The last that it told of; AssertionError if that is not on the disk."""
        told = [update.checkpoint for update in self.updates if update.HasField("checkpoint")]
        if not told:
            return None
        path = self.folder / "checkpoints" / f"{told[-1].step:012d}.safetensors"
        assert path.stat().st_size == told[-1].size_bytes
        return path

    @property
    def result(self) -> FinishTrainingJobRequest:
        """Its result; FileNotFoundError if there is none."""
        return json_format.Parse((self.folder / "result.json").read_text(), FinishTrainingJobRequest())

    def wait_for_training(self) -> None:
        """Returns after a step, or at the end if that is sooner."""
        eventually_sync(lambda: self.has_told("progress") or not self.process.is_alive(), timeout=LIMIT_S)

    def end(self) -> int:
        """Waits for the end; answers the exit code, minus the number of a signal."""
        self.process.join(LIMIT_S)
        code = self.process.exitcode
        assert code is not None, f"the trainer does not end: {self.output}"
        return code


def start(
    folder: Path, case: Case, *, interval_s: float, resume_from: Path | None = None, largest_file: int = -1
) -> Trainer:
    """Prepares the folder as a worker would, and has a trainer train in it; `largest_file` in bytes, -1: no limit."""
    folder.mkdir(parents=True)
    dataset = Dataset()
    dataset.CopyFrom(case.dataset)
    dataset.digest = hashlib.sha256(case.content).hexdigest()
    job = TrainingJob(name="trainingJobs/test", attempt=1, spec=check_spec(case.spec, dataset).spec)
    (folder / "dataset").write_bytes(case.content)
    (folder / "dataset.json").write_text(json_format.MessageToJson(dataset))
    (folder / "job.json").write_text(json_format.MessageToJson(job))
    (folder / "trainer.json").write_text(json.dumps({"checkpoint_interval_s": interval_s}))
    if resume_from is not None:
        shutil.copy(resume_from, folder / "checkpoint.safetensors")
    for name in ("events", "output"):
        (folder / name).touch()
    process = _processes.Process(target=_become_trainer, args=(str(folder), largest_file))
    process.start()
    return Trainer(folder, process)


def _become_trainer(folder: str, largest_file: int) -> None:
    """In the new process: what it tells and prints goes into files, else it is a trainer as a worker starts it."""
    from modelyard_workers.trainer.__main__ import main

    events = os.open(f"{folder}/events", os.O_WRONLY | os.O_APPEND)
    output = os.open(f"{folder}/output", os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    sys.argv = ["trainer", "--workdir", folder, "--events-fd", str(events)]
    sys.exit(main())


def train_in_peace(folder: Path, case: Case) -> tuple[Trainer, float]:
    """Trains without checkpoints or interruption; answers how long the steps took too, in seconds."""
    trainer = start(folder, case, interval_s=0)
    trainer.wait_for_training()
    begun = time.monotonic()
    eventually_sync(lambda: trainer.has_told("evaluation") or not trainer.process.is_alive(), timeout=LIMIT_S)
    seconds = time.monotonic() - begun
    assert trainer.end() == 0, trainer.output
    assert trainer.result.HasField("succeeded"), trainer.output
    return trainer, seconds


def train_with_kills(
    folder: Path, case: Case, chance: random.Random, signals: Sequence[signal.Signals], longest_s: float
) -> list[Trainer]:
    """Trains; each of the first trainers is sent one of `signals`, at a random moment in its first `longest_s`.

    The next one goes on from the newest checkpoint told of. Answers all trainers; the last one has the result.
    """
    trainers: list[Trainer] = []
    newest: Path | None = None
    for number in [*signals, None]:
        trainer = start(folder / str(len(trainers)), case, interval_s=0.05, resume_from=newest)
        trainers.append(trainer)
        if number is not None:
            trainer.wait_for_training()
            trainer.process.join(chance.uniform(0, longest_s))
            if trainer.process.is_alive():
                os.kill(trainer.process.pid or 0, number)
        code = trainer.end()
        if code == 0:
            break
        assert number is not None, trainer.output
        assert code == {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 128 + signal.SIGTERM}[number], trainer.output
        newest = trainer.newest_checkpoint or newest
    return trainers


def same_model(one: Trainer, other: Trainer) -> bool:
    """Whether both exported the same bytes."""
    return (one.folder / "model.onnx").read_bytes() == (other.folder / "model.onnx").read_bytes()


def main() -> int:
    """Trains the cases named on the command line, else all; 1 if a result differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], help="which cases")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    different = []
    with tempfile.TemporaryDirectory() as root:
        for name in options.cases or CASES:
            reference, seconds = train_in_peace(Path(root, name, "peace"), CASES[name])
            signals = chance.choices([signal.SIGKILL, signal.SIGTERM], k=3)
            trainers = train_with_kills(Path(root, name, "kills"), CASES[name], chance, signals, seconds / 3)
            equal = same_model(reference, trainers[-1])
            print(f"{name}: {len(trainers)} trainers, {'the same model' if equal else 'ANOTHER MODEL'}", flush=True)
            for trainer in trainers:
                print("".join(f"    {line}\n" for line in trainer.output.splitlines()), flush=True)
            if not equal:
                different.append(name)
    print(f"different: {', '.join(different) or 'none'}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
