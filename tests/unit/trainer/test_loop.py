"""The training loop: batches, losses, stopping, divergence, and that nothing is left to chance."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from modelyard.v1 import training_spec_pb2 as pb
from modelyard.v1.training_job_pb2 import TrainingProgress
from modelyard_workers.trainer.checkpoint_file import Origin
from modelyard_workers.trainer.early_stopping import BestEpoch
from modelyard_workers.trainer.failures import Diverged
from modelyard_workers.trainer.loop import Rows, ShuffledBatches, TrainingState, mean_loss, train
from modelyard_workers.trainer.losses import LOSSES
from modelyard_workers.trainer.optimizers import build_optimizer
from modelyard_workers.trainer.progress import ProgressMeter
from modelyard_workers.trainer.saving import CheckpointSaver
from modelyard_workers.trainer.stopping import Stopped, StopRequest

SQUARED = LOSSES[pb.LOSS_MEAN_SQUARED_ERROR]
ADAM = pb.Adam(beta1=0.9, beta2=0.999, epsilon=1e-8)


def line(rows: int, seed: int = 0) -> Rows:
    """y = x1 - 2 x2 exactly."""
    features = torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))
    return Rows(features, features @ torch.tensor([[1.0], [-2.0]]))


def state_for(
    network: nn.Module,
    *,
    rows: int = 64,
    batch_size: int = 16,
    rate: float = 0.05,
    stopping: pb.EarlyStopping | None = None,
) -> TrainingState:
    return TrainingState(
        network=network,
        optimizer=build_optimizer(pb.Optimizer(learning_rate=rate, adam=ADAM), network.parameters()),
        batches=ShuffledBatches(rows, batch_size, seed=3),
        best=BestEpoch(stopping),
    )


def run(
    state: TrainingState,
    *,
    epochs: int = 30,
    stop: StopRequest | None = None,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
) -> None:
    meter = ProgressMeter(report, max_epochs=epochs, rows_per_epoch=64)
    saver = CheckpointSaver(Path("/nonexistent"), Origin("", ""), lambda message: None, interval_s=0)
    train(state, line(64), line(32, seed=1), SQUARED, epochs, meter, saver, stop or StopRequest())


def test_a_line_is_learned() -> None:
    state = state_for(nn.Linear(2, 1))
    run(state, epochs=200)
    assert (state.epoch, state.step) == (200, 800)
    assert state.validation_loss < 1e-4
    assert state.best.loss <= state.validation_loss


def test_the_same_seed_gives_the_same_bits() -> None:
    def weights() -> list[torch.Tensor]:
        torch.manual_seed(5)
        network = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1))
        run(state_for(network))
        return list(network.state_dict().values())

    assert all(torch.equal(one, other) for one, other in zip(weights(), weights(), strict=True))


def test_training_loss_is_the_mean_over_all_rows_of_the_epoch() -> None:
    network = nn.Linear(2, 1)
    state = state_for(network, rate=1e-30, batch_size=24)  # batches of 22, 21 and 21 rows; nothing moves
    run(state, epochs=1)
    assert state.training_loss == pytest.approx(mean_loss(network, line(64), SQUARED, StopRequest()), rel=1e-6)


def test_early_stopping_goes_back_to_the_best_weights() -> None:
    """At this rate the loss is lowest early and then jumps about."""
    network = nn.Linear(2, 1)
    state = state_for(network, rate=1.5, stopping=pb.EarlyStopping(patience=7))
    run(state, epochs=10_000)
    assert state.epoch < 10_000
    assert state.epoch - state.best.epoch == 7
    assert mean_loss(network, line(32, seed=1), SQUARED, StopRequest()) == state.best.loss < state.validation_loss


def test_without_early_stopping_the_last_weights_stay() -> None:
    network = nn.Linear(2, 1)
    state = state_for(network, rate=1.5)
    run(state, epochs=50)
    assert state.epoch == 50
    assert mean_loss(network, line(32, seed=1), SQUARED, StopRequest()) == state.validation_loss > state.best.loss


def test_a_loss_that_is_not_finite_is_called_diverged() -> None:
    network = nn.Linear(2, 1)
    state = state_for(network, rate=1e38)
    with pytest.raises(Diverged, match=r"training loss of epoch \d+ is (inf|nan); try a smaller learning rate"):
        run(state)


def test_a_validation_loss_that_is_not_finite_is_called_diverged() -> None:
    network = nn.Linear(2, 1)
    state = state_for(network, rate=1e22, batch_size=64)  # the one step of the epoch comes after its loss
    with pytest.raises(Diverged, match="the validation loss of epoch 1 is inf"):
        run(state)


def test_a_long_epoch_is_not_waited_for_when_the_loss_is_no_number() -> None:
    network = nn.Linear(2, 1)
    nn.init.constant_(network.weight, float("nan"))
    state = state_for(network)
    with pytest.raises(Diverged, match="the training loss of epoch 1 is nan"):
        run(state)
    assert state.step == 1


def test_a_request_to_stop_is_heard_at_the_next_step() -> None:
    stop = StopRequest()
    state = state_for(nn.Linear(2, 1))

    def report(progress: TrainingProgress) -> None:
        stop.request()

    with pytest.raises(Stopped):
        run(state, stop=stop, report=report)
    assert state.step == 1


def test_a_stopped_training_goes_on_where_it_was() -> None:
    """State and global generator are all there is: what continues equals what was never interrupted, bit for bit."""

    def network() -> nn.Module:
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    whole = state_for(network())
    run(whole)
    broken = state_for(network())
    for _ in range(7):  # in the middle of epochs
        stop = StopRequest()
        stop.request()
        with pytest.raises(Stopped):
            run(broken, stop=stop)
    run(broken)
    assert (broken.step, broken.training_loss, broken.best.loss) == (whole.step, whole.training_loss, whole.best.loss)
    for one, other in zip(whole.network.parameters(), broken.network.parameters(), strict=True):
        assert torch.equal(one, other)


@given(st.integers(1, 300), st.integers(1, 400), st.integers(0, 2**64 - 1))
def test_an_epoch_has_every_row_once_in_batches_of_one_size(rows: int, batch_size: int, seed: int) -> None:
    loader = ShuffledBatches(rows, batch_size, seed)
    batches = list(loader)
    assert sorted(torch.cat(batches).tolist()) == list(range(rows))
    lengths = {len(batch) for batch in batches}
    assert max(lengths) - min(lengths) <= 1
    assert len(batches) == loader.per_epoch
    if batch_size > 1 and rows > 1:
        assert min(lengths) > 1
        assert max(lengths) <= max(batch_size, 3)
    else:
        assert lengths == {1}


def test_every_epoch_has_its_own_order() -> None:
    loader = ShuffledBatches(100, 10, seed=0)
    first = torch.cat(list(loader))
    assert list(loader) == []
    loader.end_epoch()
    second = torch.cat(list(loader))
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.cat(list(ShuffledBatches(100, 10, seed=0))))


def test_min_delta_counts_a_slow_creep_in_the_end() -> None:
    best = BestEpoch(pb.EarlyStopping(patience=3, min_delta=0.1))
    network = nn.Linear(1, 1)
    stopped_at = 0
    for epoch, loss in enumerate([1.0, 0.95, 0.89, 0.85, 0.84, 0.83], start=1):
        best.observe(epoch, loss, network)
        stopped_at = stopped_at or (epoch if best.should_stop(epoch) else 0)
    assert stopped_at == 6  # 0.89 was the last that beat its mark by more than 0.1; the best is the last nevertheless
    assert (best.loss, best.epoch) == (0.83, 6)


def test_the_meter_reports_at_most_four_times_a_second_and_at_the_end() -> None:
    now = 0.0
    reports: list[TrainingProgress] = []
    meter = ProgressMeter(reports.append, max_epochs=10, rows_per_epoch=100, clock=lambda: now)
    state = state_for(nn.Linear(2, 1))
    for step in range(1, 101):  # 10 rows every 50 ms: 200 rows a second
        now = step * 0.05
        state.step, state.epoch = step, step // 10
        meter.step_done(state, 10)
    meter.finished(state)
    assert len(reports) <= 5 / 0.25 + 2
    middle = next(report for report in reports if report.epoch == 5)
    assert middle.rows_per_second == pytest.approx(200)
    assert middle.remaining.ToTimedelta().total_seconds() == pytest.approx((1000 - 10 * middle.step) / 200)
    assert (reports[-1].epoch, reports[-1].step, reports[-1].remaining.ToNanoseconds()) == (10, 100, 0)
    assert not reports[0].HasField("remaining")
    assert math.isfinite(reports[0].best_validation_loss)


def test_a_training_that_goes_on_counts_what_was_done_and_measures_what_it_does() -> None:
    now = 0.0
    reports: list[TrainingProgress] = []
    meter = ProgressMeter(
        reports.append, max_epochs=10, rows_per_epoch=100, rows_before=750, clock=lambda: now
    )  # seven epochs and a half
    state = state_for(nn.Linear(2, 1))
    for step in range(76, 81):
        now += 0.5  # 10 rows: 20 rows a second
        state.step, state.epoch = step, 7
        meter.step_done(state, 10)
    assert reports[-1].rows_per_second == pytest.approx(20)
    assert reports[-1].remaining.ToTimedelta().total_seconds() == pytest.approx(200 / 20)


@given(st.integers(1, 100), st.integers(1, 40), st.data())
def test_the_rows_of_an_epoch_so_far_are_known_from_its_batches(
    rows: int, batch_size: int, data: st.DataObject
) -> None:
    loader = ShuffledBatches(rows, batch_size, seed=0)
    taken = data.draw(st.integers(0, loader.per_epoch))
    given_out = sum(len(batch) for batch, _ in zip(loader, range(taken), strict=False))
    loader.position = taken
    assert loader.rows_given_out() == given_out
