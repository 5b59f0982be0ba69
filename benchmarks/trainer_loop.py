"""What the platform costs a training: a job in a real trainer process, beside the same loop run bare in PyTorch.

    .venv/bin/python benchmarks/trainer_loop.py [NETWORK …] [--seconds 3] [--rounds 7] [--interval 3]

The job has everything that a job has: progress, stop checks, deterministic mode, and a checkpoint every `--interval`
seconds (a worker's default is 60: this is the dearer case). Bare is the loop without any of it: the same network, data,
batches, update rule and number of threads, validation once an epoch. `torch.optim`: that with PyTorch's own optimiser.

They take turns, the trainer stopped (SIGSTOP) while the others run, so that a noisy machine harms all. Steps a second
by the clock and by processor time are medians over the rounds; so are the ratios of the job to the others.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import selectors
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import psutil
import torch
from google.protobuf import json_format
from torch import Tensor, nn

from modelyard.training import CheckedSpec, check_spec
from modelyard.v1 import tensor_pb2
from modelyard.v1 import training_spec_pb2 as pb
from modelyard.v1.dataset_pb2 import Dataset
from modelyard.v1.training_job_pb2 import TrainingJob
from modelyard.v1.worker_service_pb2 import TrainingUpdate
from modelyard_workers.trainer.hardware import choose_threads
from modelyard_workers.trainer.losses import LOSSES
from modelyard_workers.trainer.networks import build_network
from modelyard_workers.trainer.optimizers import build_optimizer

ROWS, VALIDATION_ROWS, BATCH = 4096, 512, 32
WARM_UP_S = 0.5


def _layers(*sizes: int) -> pb.Network:
    layers: list[pb.Layer] = []
    for size in sizes:
        layers += [pb.Layer(linear=pb.LinearLayer(outputs=size)), pb.Layer(activation=pb.ACTIVATION_RELU)]
    return pb.Network(layer_list=pb.LayerList(layers=layers[:-1]))


NETWORKS: dict[str, tuple[pb.Network, tuple[int, ...]]] = {
    "small": (_layers(20, 40, 1), (10,)),
    "wide": (_layers(512, 512, 1), (256,)),
    "cnn": (pb.Network(small_cnn=pb.SmallCnn(channels=[16, 32], outputs=1)), (8, 8)),
}
"""A network and the shape of one row: ours on ten numbers, one of 395,000 parameters, a CNN on pictures of 8 x 8."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Steps a second."""

    clock: float
    processor: float
    """By the processor time of the process, all threads."""


def make_job(folder: Path, name: str, interval_s: float) -> CheckedSpec:
    """Writes the folder of an endless job on random numbers."""
    network, shape = NETWORKS[name]
    random = np.random.default_rng(0)
    buffer = io.BytesIO()
    rows = ROWS + 2 * VALIDATION_ROWS
    np.savez(buffer, x=random.normal(size=(rows, *shape)).astype(np.float32), y=random.normal(size=rows))
    dataset = Dataset(
        name="datasets/numbers",
        format=Dataset.FORMAT_NPZ,
        row_count=rows,
        digest=hashlib.sha256(buffer.getvalue()).hexdigest(),
    )
    dataset.columns.add(name="x", data_type=tensor_pb2.DATA_TYPE_FP32, shape=shape, minimum=-9, maximum=9)
    dataset.columns.add(name="y", data_type=tensor_pb2.DATA_TYPE_FP64, minimum=-9, maximum=9)
    spec = pb.TrainingSpec(
        dataset=dataset.name,
        model="models/numbers",
        task=pb.TASK_REGRESSION,
        target_column="y",
        network=network,
        optimizer=pb.Optimizer(learning_rate=1e-5, adam=pb.Adam()),
        max_epochs=1_000_000,
        batch_size=BATCH,
        split=pb.DataSplit(validation_fraction=VALIDATION_ROWS / rows, test_fraction=VALIDATION_ROWS / rows),
    )
    checked = check_spec(spec, dataset)
    (folder / "dataset").write_bytes(buffer.getvalue())
    (folder / "dataset.json").write_text(json_format.MessageToJson(dataset))
    (folder / "job.json").write_text(json_format.MessageToJson(TrainingJob(name="trainingJobs/t", spec=checked.spec)))
    (folder / "trainer.json").write_text(json.dumps({"checkpoint_interval_s": interval_s}))
    return checked


class Job:
    """A trainer at work, stopped but for its turns."""

    def __init__(self, process: subprocess.Popen[bytes], events: BinaryIO) -> None:
        self._process = process
        self._events = events
        self._usage = psutil.Process(process.pid)
        self._selector = selectors.DefaultSelector()
        self._selector.register(events, selectors.EVENT_READ)
        self.checkpoints = 0

    def turn(self, seconds: float) -> Speed:
        """Lets it run; its steps between the first and the last progress that it told, warm-up left out."""
        self._process.send_signal(signal.SIGCONT)
        self._read_until(time.perf_counter() + WARM_UP_S)
        first = self._next_step()
        self._read_until(time.perf_counter() + seconds)
        last = self._next_step()
        self._process.send_signal(signal.SIGSTOP)
        steps = last[0] - first[0]
        return Speed(steps / (last[1] - first[1]), steps / (last[2] - first[2]))

    def _next_step(self) -> tuple[int, float, float]:
        """The next progress: its step, when it came, and the processor time until then."""
        while True:
            update = self._next()
            if update.HasField("progress") and not self._selector.select(0):
                spent = self._usage.cpu_times()
                return update.progress.step, time.perf_counter(), spent.user + spent.system

    def _read_until(self, end: float) -> None:
        while time.perf_counter() < end:
            if self._selector.select(max(0.0, end - time.perf_counter())):
                self._next()

    def _next(self) -> TrainingUpdate:
        line = self._events.readline()
        if not line:
            raise RuntimeError("the trainer ended")
        update = json_format.Parse(line, TrainingUpdate())
        self.checkpoints += update.HasField("checkpoint")
        return update


@contextmanager
def running_job(folder: Path) -> Iterator[Job]:
    """A trainer that has made its first steps."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "modelyard_workers.trainer", "--workdir", str(folder)]
    process = subprocess.Popen([*command, "--events-fd", str(writing)], pass_fds=(writing,), stdout=subprocess.DEVNULL)
    os.close(writing)
    with process, os.fdopen(reading, "rb", buffering=0) as events:
        try:
            job = Job(process, events)
            job.turn(1.0)
            yield job
        finally:
            process.kill()


class Bare:
    """The loop by itself."""

    def __init__(self, checked: CheckedSpec, build: Callable[[nn.Module], object]) -> None:
        spec, plan = checked.spec, checked.plan
        torch.manual_seed(spec.seed)
        self.network = build_network(plan)
        self.optimizer = build(self.network)
        choose_threads(plan, BATCH)
        self.loss_of = LOSSES[spec.loss]
        self.rows, self.validation = (
            (torch.randn(count, *plan.input_shape), torch.randn(count, 1)) for count in (ROWS, VALIDATION_ROWS)
        )

    def turn(self, seconds: float) -> Speed:
        """Trains whole epochs for so long."""
        self.train(WARM_UP_S)
        begun, spent = time.perf_counter(), time.process_time()
        steps = self.train(seconds)
        return Speed(steps / (time.perf_counter() - begun), steps / (time.process_time() - spent))

    def train(self, seconds: float) -> int:
        """Answers the number of steps."""
        network, optimizer, loss_of = self.network, self.optimizer, self.loss_of
        features, targets = self.rows
        steps, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            network.train()
            total = torch.zeros((), dtype=torch.float64)
            for rows in torch.randperm(len(features)).split(BATCH):
                loss: Tensor = loss_of(network(features[rows]), targets[rows])
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                total += loss.detach() * len(rows)
                steps += 1
            network.eval()
            with torch.no_grad():
                (total / len(features)).item(), loss_of(network(self.validation[0]), self.validation[1]).item()
        return steps


def measure(name: str, options: argparse.Namespace) -> None:
    """Prints one network's figures."""
    with tempfile.TemporaryDirectory() as root:
        checked = make_job(Path(root), name, options.interval)
        rate = checked.spec.optimizer.learning_rate
        bares = {
            "bare": Bare(checked, lambda network: build_optimizer(checked.spec.optimizer, network.parameters())),
            "torch.optim": Bare(checked, lambda network: torch.optim.Adam(network.parameters(), lr=rate, fused=True)),
        }
        with running_job(Path(root)) as job:
            speeds: dict[str, list[Speed]] = {"job": [], **{kind: [] for kind in bares}}
            for _ in range(options.rounds):
                speeds["job"].append(job.turn(options.seconds))
                for kind, bare in bares.items():
                    speeds[kind].append(bare.turn(options.seconds))
    print(f"{name}: {checked.plan.parameter_count:,} parameters, threads: {torch.get_num_threads()}")
    for kind, found in speeds.items():
        clock, processor = (_median_of(found, part) for part in ("clock", "processor"))
        line = f"  {kind:12} {clock:8,.0f} steps/s, {processor:8,.0f} by processor time"
        if kind != "job":
            ratios = [
                Speed(ours.clock / its.clock, ours.processor / its.processor)
                for ours, its in zip(speeds["job"], found, strict=True)
            ]
            line += f"; the job reaches {_median_of(ratios, 'clock'):.3f}, {_median_of(ratios, 'processor'):.3f}"
        print(line)
    print(f"  {job.checkpoints} checkpoints", flush=True)


def _median_of(speeds: list[Speed], part: str) -> float:
    return statistics.median(getattr(speed, part) for speed in speeds)


def main() -> None:
    """Measures the networks named on the command line, else all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", choices=[[], *NETWORKS], help="which networks")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--interval", type=float, default=3.0)
    options = parser.parse_args()
    for name in options.networks or NETWORKS:
        measure(name, options)


if __name__ == "__main__":
    main()
