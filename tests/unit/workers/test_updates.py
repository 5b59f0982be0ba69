"""Updates on their way: numbered, repeatable, bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelyard.v1.training_job_pb2 import TrainingJob, TrainingProgress
from modelyard.v1.worker_service_pb2 import TrainingUpdate
from modelyard_workers.updates import REPORT_BYTES, REPORT_UPDATES, WAITING_UPDATES, Batch, UpdateBuffer


def progress(step: int) -> TrainingUpdate:
    return TrainingUpdate(progress=TrainingProgress(step=step))


def line(text: str) -> TrainingUpdate:
    return TrainingUpdate(log_line=text)


class Receiver:
    """Takes batches in as the gateway does: by position."""

    def __init__(self) -> None:
        self.updates: list[TrainingUpdate] = []

    def take(self, batch: Batch) -> int:
        assert batch.first <= len(self.updates) + 1, "an update is missing"
        self.updates.extend(batch.updates[len(self.updates) + 1 - batch.first :])
        return len(self.updates)


@given(st.lists(st.sampled_from(["add", "answered", "answer lost", "never arrived"]), max_size=60))
def test_whatever_is_lost_on_the_way_everything_arrives_once_and_in_order(happenings: list[str]) -> None:
    buffer, receiver, added = UpdateBuffer(), Receiver(), 0
    for what in happenings:
        if what == "add":
            added += 1
            buffer.add(progress(added))
            continue
        batch = buffer.batch()
        if what != "never arrived":
            received = receiver.take(batch)
            if what == "answered":
                buffer.confirm(received)
    buffer.confirm(receiver.take(buffer.batch()))
    assert buffer.empty()
    assert [update.progress.step for update in receiver.updates] == list(range(1, added + 1))


def test_a_repeated_batch_may_grow_but_keeps_its_positions() -> None:
    buffer = UpdateBuffer()
    buffer.add(progress(1))
    first = buffer.batch()
    buffer.add(progress(2))
    again = buffer.batch()
    assert (first.first, again.first) == (1, 1)
    assert again.updates[:1] == first.updates


def test_a_batch_is_bounded_in_number_and_in_bytes() -> None:
    many, large = UpdateBuffer(), UpdateBuffer()
    for step in range(REPORT_UPDATES + 10):
        many.add(progress(step))
    for _ in range(400):
        large.add(line("ü" * 4_096))
    assert len(many.batch().updates) == REPORT_UPDATES
    batch = large.batch()
    assert 0 < sum(update.ByteSize() for update in batch.updates) <= REPORT_BYTES


def test_an_update_larger_than_a_report_still_goes_out_alone() -> None:
    buffer = UpdateBuffer()
    buffer.add(line("x" * (REPORT_BYTES + 1)))
    buffer.add(progress(1))
    assert len(buffer.batch().updates) == 1


def test_while_the_gateway_is_away_states_stay_the_loss_curve_thins_and_old_lines_are_counted() -> None:
    buffer, receiver = UpdateBuffer(), Receiver()
    buffer.add(TrainingUpdate(state=TrainingJob.STATE_RUNNING))
    for step in range(1, 50_001):
        buffer.add(progress(step))
        buffer.add(line(f"line {step}"))
    buffer.add(TrainingUpdate(state=TrainingJob.STATE_EVALUATING))
    while not buffer.empty():
        buffer.confirm(receiver.take(buffer.batch()))
    steps = [update.progress.step for update in receiver.updates if update.HasField("progress")]
    lines = [update.log_line for update in receiver.updates if update.HasField("log_line")]
    states = [update.state for update in receiver.updates if update.HasField("state")]
    assert states == [TrainingJob.STATE_RUNNING, TrainingJob.STATE_EVALUATING]
    assert len(receiver.updates) <= WAITING_UPDATES + 1
    assert steps == sorted(steps)
    assert steps[-1] == 50_000
    assert lines[-1] == "line 50000"
    assert int(lines[0].split()[1].replace(",", "")) + len(lines) - 1 == 50_000


def test_a_refused_batch_can_be_dropped_and_the_next_takes_its_positions() -> None:
    buffer, receiver = UpdateBuffer(), Receiver()
    buffer.add(progress(1))
    buffer.confirm(receiver.take(buffer.batch()))
    buffer.add(line("refused"))
    buffer.discard(buffer.batch())
    buffer.add(progress(2))
    buffer.confirm(receiver.take(buffer.batch()))
    assert [update.progress.step for update in receiver.updates] == [1, 2]
    assert buffer.empty()


def test_a_gateway_that_has_forgotten_is_given_what_comes_next_at_the_position_it_expects() -> None:
    buffer = UpdateBuffer()
    for step in (1, 2):
        buffer.add(progress(step))
    buffer.batch()
    buffer.confirm(2)
    buffer.confirm(0)
    buffer.add(progress(3))
    assert buffer.batch().first == 1
