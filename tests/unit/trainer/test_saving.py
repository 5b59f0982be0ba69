"""When checkpoints are made, what is kept of them, and what happens if they cannot be written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from modelyard.v1 import training_spec_pb2 as pb
from modelyard.v1.training_job_pb2 import Checkpoint as CheckpointMessage
from modelyard_workers.trainer import saving
from modelyard_workers.trainer.checkpoint_file import Origin, read_checkpoint
from modelyard_workers.trainer.early_stopping import BestEpoch
from modelyard_workers.trainer.loop import ShuffledBatches, TrainingState
from modelyard_workers.trainer.optimizers import build_optimizer
from modelyard_workers.trainer.saving import CheckpointSaver

ORIGIN = Origin("spec", "data")


class Bench:
    """A saver, a clock that is put forward by hand, and a state whose steps are counted by hand."""

    def __init__(self, folder: Path, *, interval_s: float = 60, saved_step: int = 0) -> None:
        self.now = 0.0
        self.folder = folder / "checkpoints"
        self.told: list[CheckpointMessage] = []
        network = nn.Linear(2, 1)
        self.state = TrainingState(
            network=network,
            optimizer=build_optimizer(pb.Optimizer(learning_rate=0.1, sgd=pb.Sgd()), network.parameters()),
            batches=ShuffledBatches(10, 1, seed=0),
            best=BestEpoch(None),
            step=saved_step,
        )
        self.saver = CheckpointSaver(
            self.folder, ORIGIN, self.tell, interval_s=interval_s, saved_step=saved_step, clock=lambda: self.now
        )

    def tell(self, message: CheckpointMessage) -> None:
        """Takes note; what is told of is on the disk."""
        assert (self.folder / f"{message.step:012d}.safetensors").stat().st_size == message.size_bytes
        self.told.append(message)

    def step(self, seconds: float = 1.0, *, wait: bool = True) -> None:
        """One step that takes so long."""
        self.now += seconds
        self.state.step += 1
        self.saver.step_done(self.state)
        if wait:
            self.saver.wait()

    @property
    def steps_told(self) -> list[int]:
        return [message.step for message in self.told]

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Nothing is written before the event is set."""
    written = threading.Event()
    real = saving.checkpoint_file.write_checkpoint

    def write(*arguments: object) -> int:
        written.wait(60)
        return real(*arguments)  # type: ignore[arg-type]  # what it was given

    monkeypatch.setattr(saving.checkpoint_file, "write_checkpoint", write)
    yield written
    written.set()


def test_one_is_made_whenever_the_interval_has_passed_and_two_are_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, interval_s=60)
    for _ in range(250):
        bench.step()
    assert bench.steps_told == [60, 120, 180, 240]
    assert bench.files == ["000000000180.safetensors", "000000000240.safetensors"]
    assert read_checkpoint(bench.folder / bench.files[-1], ORIGIN).document["step"] == 240


def test_with_no_interval_one_is_made_only_when_asked_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, interval_s=0)
    for _ in range(50):
        bench.step(1e6)
    bench.saver.finished(bench.state)
    assert bench.told == []
    bench.saver.save(bench.state)
    assert bench.steps_told == [50]


def test_a_step_is_saved_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, interval_s=10, saved_step=7)
    bench.saver.save(bench.state)  # stopped before it made a step of its own
    assert bench.told == []
    bench.step(10)
    bench.saver.save(bench.state)
    assert bench.steps_told == [8]


def test_the_end_of_a_long_training_is_saved_and_that_of_a_short_one_is_not(tmp_path: Path) -> None:
    short = Bench(tmp_path / "short")
    short.step(59)
    short.saver.finished(short.state)
    assert short.told == []
    long = Bench(tmp_path)
    long.step(60)
    long.step(1)
    long.saver.finished(long.state)
    assert long.steps_told == [1, 2]


def test_what_takes_long_is_done_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds of every checkpoint: the next one in 200 seconds, not in 60."""
    bench = Bench(tmp_path, interval_s=60)
    real = saving.take_snapshot

    def slow(state: TrainingState) -> object:
        bench.now += 2
        return real(state)

    monkeypatch.setattr(saving, "take_snapshot", slow)
    while bench.now < 599:
        bench.step()
    times = [60, 260, 460]
    assert len(bench.told) == len(times)
    for message, seconds in zip(bench.told, times, strict=True):
        assert message.step == pytest.approx(seconds, abs=10)  # steps take a second, snapshots two


def test_a_slow_disk_holds_no_step_up_and_gets_one_at_a_time(tmp_path: Path, slow_disk: threading.Event) -> None:
    bench = Bench(tmp_path, interval_s=10)
    before = threading.active_count()
    weights = bench.state.network.get_parameter("weight")
    for _ in range(100):
        bench.step(wait=False)
        with torch.no_grad():
            weights += 1  # the training goes on
    assert bench.told == []
    assert threading.active_count() == before + 1
    at_step_10 = weights.detach().clone() - 91
    slow_disk.set()
    bench.saver.wait()
    assert bench.steps_told == [10]
    saved = read_checkpoint(bench.folder / "000000000010.safetensors", ORIGIN).tensors["network.weight"]
    assert torch.allclose(saved, at_step_10, atol=1e-4)


def test_being_stopped_waits_for_the_one_that_is_being_written(tmp_path: Path, slow_disk: threading.Event) -> None:
    bench = Bench(tmp_path, interval_s=10)
    bench.step(10, wait=False)
    bench.step(1, wait=False)
    threading.Timer(0.05, slow_disk.set).start()
    bench.saver.save(bench.state)
    assert bench.steps_told == [1, 2]


def test_a_folder_that_cannot_be_written_costs_a_line_and_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(tmp_path, interval_s=10)
    bench.folder.write_text("in the way")
    bench.step(10)
    bench.step(9)
    assert "no checkpoint of step 1: " in capsys.readouterr().out
    bench.folder.unlink()
    bench.step(1)
    assert bench.steps_told == [3]


def test_what_cannot_be_copied_for_want_of_memory_is_no_reason_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(tmp_path, interval_s=10)

    def fail(state: TrainingState) -> object:
        raise MemoryError

    monkeypatch.setattr(saving, "take_snapshot", fail)
    bench.step(10)
    assert "no checkpoint of step 1: memory for a copy is short" in capsys.readouterr().out
    monkeypatch.undo()
    bench.step(10)
    assert bench.steps_told == [2]


def test_a_parent_that_does_not_listen_is_left_to_the_training(tmp_path: Path) -> None:
    bench = Bench(tmp_path, interval_s=10)

    def nobody(message: CheckpointMessage) -> None:
        raise BrokenPipeError

    bench.saver._tell = nobody
    bench.step(10)
    assert bench.files == ["000000000001.safetensors"]
