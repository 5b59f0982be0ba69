"""The losses of a job, kept in constant memory."""

from __future__ import annotations

from modelyard.cli.loss_curve import MAX_POINTS, LossCurve
from modelyard.v1.training_job_pb2 import TrainingProgress


def progress(epoch: int, *, step: int = 0, training: float = 1.0, validation: float = 2.0) -> TrainingProgress:
    return TrainingProgress(
        epoch=epoch, max_epochs=10**6, step=step, training_loss=training, validation_loss=validation
    )


def curve_of(*steps: TrainingProgress) -> LossCurve:
    curve = LossCurve()
    for one in steps:
        curve.add(one)
    return curve


def test_progress_before_the_first_epoch_has_no_loss_yet() -> None:
    assert len(curve_of(progress(0, step=7))) == 0


def test_a_trainer_that_counts_no_steps_is_drawn_by_epochs() -> None:
    assert curve_of(progress(1), progress(2)).lines()["training"] == [(1, 1.0), (2, 1.0)]


def test_an_attempt_that_goes_on_from_a_checkpoint_draws_over_what_is_behind_it() -> None:
    curve = curve_of(*(progress(epoch, step=epoch * 10, training=epoch) for epoch in range(1, 6)))
    curve.add(progress(3, step=30, training=33))
    assert curve.lines()["training"] == [(10, 1), (20, 2), (30, 33)]
    assert curve.epochs == (1, 3)


def test_an_attempt_that_begins_again_draws_a_new_line() -> None:
    curve = curve_of(*(progress(epoch, step=epoch * 10) for epoch in range(1, 6)), progress(1, step=10))
    assert len(curve) == 1


def test_losses_that_are_no_number_are_left_out() -> None:
    curve = curve_of(progress(1, training=float("nan")), progress(2, training=float("inf")), progress(3))
    assert curve.lines()["training"] == [(3, 1.0)]


def test_a_job_without_validation_has_one_line() -> None:
    assert list(curve_of(progress(1, validation=0), progress(2, validation=0)).lines()) == ["training"]


def test_a_job_of_any_length_takes_the_same_memory_and_keeps_both_ends() -> None:
    curve = curve_of(*(progress(epoch, step=epoch) for epoch in range(1, 50_000)))
    assert len(curve) <= MAX_POINTS
    places = [place for place, _ in curve.lines()["training"]]
    assert places == sorted(places)
    assert places[-1] == 49_999
    assert places[0] < 100
