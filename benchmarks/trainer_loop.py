"""What the platform costs a training: a job in a real trainer process, beside the same loop run bare in PyTorch.

    .venv/bin/python benchmarks/trainer_loop.py [NETWORK …] [--seconds 1] [--rounds 15] [--interval 3]

The job has everything that a job has: progress, stop checks, deterministic mode, and a checkpoint every `--interval`
seconds (a worker's default is 60: this is the dearer case). Bare is the loop without any of it: the same network, data,
batches, update rule and number of threads, validation once an epoch. `torch.optim`: that with PyTorch's own optimiser.

They take turns, the trainer stopped (SIGSTOP) while the others run, so that a noisy machine harms all. Steps a second
are medians over the rounds, by the clock and by processor time; so are the first two ratios. The third is that of the
best rounds by processor time. `again` is bare once more: its distance from 1 says how far the others are to be
believed.

`parts` depends less on neighbours: what the job does besides, measured piece by piece, as a share of its time. Where
there is a GPU both train on it; then the ratios by processor time say little.
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
from typing import BinaryIO, Protocol

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
from modelyard_workers.trainer.assignment import CHECKPOINT_INTERVAL_S
from modelyard_workers.trainer.checkpoint_file import Origin
from modelyard_workers.trainer.early_stopping import BestEpoch
from modelyard_workers.trainer.hardware import choose_threads
from modelyard_workers.trainer.loop import ShuffledBatches, TrainingState
from modelyard_workers.trainer.losses import LOSSES
from modelyard_workers.trainer.networks import build_network
from modelyard_workers.trainer.optimizers import build_optimizer
from modelyard_workers.trainer.progress import INTERVAL_S, ProgressMeter
from modelyard_workers.trainer.saving import CheckpointSaver
from modelyard_workers.trainer.stopping import StopRequest
from modelyard_workers.trainer.update_stream import UpdateStream

ROWS, VALIDATION_ROWS, BATCH = 4096, 512, 32
WARM_UP_S = 0.25


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


class Stepper(Protocol):
    """An optimiser, ours or PyTorch's."""

    def step(self) -> object:
        """One update."""

    def zero_grad(self) -> None:
        """Forgets the gradients."""


class Bare:
    """The loop by itself."""

    def __init__(self, checked: CheckedSpec, build: Callable[[nn.Module], Stepper]) -> None:
        spec, plan = checked.spec, checked.plan
        torch.manual_seed(spec.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = build_network(plan).to(self.device)
        self.optimizer = build(self.network)
        choose_threads(plan, BATCH)
        self.loss_of = LOSSES[spec.loss]
        self.rows, self.validation = (
            (torch.randn(count, *plan.input_shape).to(self.device), torch.randn(count, 1).to(self.device))
            for count in (ROWS, VALIDATION_ROWS)
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
            total = torch.zeros((), dtype=torch.float64, device=self.device)
            for rows in torch.randperm(len(features)).to(self.device).split(BATCH):
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
        optimizer = checked.spec.optimizer
        bares = {
            "bare": Bare(checked, lambda network: build_optimizer(optimizer, network.parameters())),
            "again": Bare(checked, lambda network: build_optimizer(optimizer, network.parameters())),
            "torch.optim": Bare(checked, _adam_of_torch(optimizer.learning_rate)),
        }
        with running_job(Path(root)) as job:
            speeds: dict[str, list[Speed]] = {"job": [], **{kind: [] for kind in bares}}
            for _ in range(options.rounds):
                speeds["job"].append(job.turn(options.seconds))
                for kind, bare in bares.items():
                    speeds[kind].append(bare.turn(options.seconds))
    print(f"{name}: {checked.plan.parameter_count:,} parameters, threads: {torch.get_num_threads()}")
    for kind, found in speeds.items():
        print(f"  {kind:12} {_clock(found):8,.0f} steps/s, {_processor(found):8,.0f} by processor time", end="")
        print("" if kind == "job" else f"; job/{kind}: {_ratios(speeds['job'], found)}")
    print(f"  again/bare: {_ratios(speeds['again'], speeds['bare'])}; {job.checkpoints} checkpoints", flush=True)
    with tempfile.TemporaryDirectory() as root:
        print_parts(checked, Path(root), _processor(speeds["job"]))


def print_parts(checked: CheckedSpec, folder: Path, steps_per_second: float) -> None:
    """Prints what a job does besides training: in every step, four times a second, every 60 seconds."""
    bare = Bare(checked, lambda network: build_optimizer(checked.spec.optimizer, network.parameters()))
    bare.train(0.1)
    state = TrainingState(
        network=bare.network,
        optimizer=bare.optimizer,  # type: ignore[arg-type]  # it is one of ours
        batches=ShuffledBatches(ROWS, BATCH, 0, bare.device),
        best=BestEpoch(None),
        loss_sum=torch.zeros((), dtype=torch.float64, device=bare.device),
    )
    stop = StopRequest()
    saver = CheckpointSaver(folder / "parts", Origin("", ""), lambda _: None, interval_s=CHECKPOINT_INTERVAL_S)
    with UpdateStream(os.open(os.devnull, os.O_WRONLY)) as nobody:
        meter = ProgressMeter(nobody.progress, max_epochs=1, rows_per_epoch=ROWS)

        def step() -> None:
            meter.step_done(state, BATCH)
            saver.step_done(state)
            stop.check()

        def save() -> None:
            state.step += 1
            saver.save(state)

        step()
        costs = _cost(step, 1000), _cost(lambda: meter.finished(state), 50), _cost(save, 1)
    share = costs[0] * steps_per_second + costs[1] / INTERVAL_S + costs[2] / CHECKPOINT_INTERVAL_S
    print(
        f"  parts: {costs[0] * 1e6:.2f} µs a step, {costs[1] * 1e6:.0f} µs a progress report, "
        f"{costs[2] * 1e3:.1f} ms a checkpoint: {share:.2%} of a processor's time",
        flush=True,
    )


def _cost(act: Callable[[], None], times: int) -> float:
    """Processor seconds of one `act`, all threads: the median of 15 tries."""
    tries = []
    for _ in range(15):
        begun = time.process_time()
        for _ in range(times):
            act()
        tries.append((time.process_time() - begun) / times)
    return statistics.median(tries)


def _adam_of_torch(rate: float) -> Callable[[nn.Module], Stepper]:
    return lambda network: torch.optim.Adam(network.parameters(), lr=rate, fused=True)


def _ratios(ours: list[Speed], others: list[Speed]) -> str:
    rounds = [
        Speed(one.clock / two.clock, one.processor / two.processor) for one, two in zip(ours, others, strict=True)
    ]
    best = max(speed.processor for speed in ours) / max(speed.processor for speed in others)
    return f"{_clock(rounds):.3f} {_processor(rounds):.3f} {best:.3f}"


def _clock(speeds: list[Speed]) -> float:
    return statistics.median(speed.clock for speed in speeds)


def _processor(speeds: list[Speed]) -> float:
    return statistics.median(speed.processor for speed in speeds)


def main() -> None:
    """Measures the networks named on the command line, else all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", choices=[[], *NETWORKS], help="which networks")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--interval", type=float, default=3.0)
    options = parser.parse_args()
    for name in options.networks or NETWORKS:
        measure(name, options)


if __name__ == "__main__":
    main()
