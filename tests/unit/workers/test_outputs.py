"""A trainer's output, turned into updates."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.v1.training_job_pb2 import TrainingJob
from modelyard.v1.worker_service_pb2 import TrainingUpdate
from modelyard_workers.log_limit import BURST_LINES, LogLimit
from modelyard_workers.outputs import EventStream, LogStream


def events(*lines: bytes | dict[str, Any]) -> list[TrainingUpdate]:
    delivered: list[TrainingUpdate] = []
    stream = EventStream(delivered.append)
    for line in lines:
        stream.feed((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
    stream.finish()
    return delivered


def test_progress_and_evaluations_pass_as_they_are() -> None:
    progress, evaluation = events(
        {"progress": {"epoch": 3, "step": "12", "validationLoss": "NaN", "remaining": "1.5s"}},
        {"evaluation": {"metrics": {"r2": 0.5}}},
    )
    assert (progress.progress.epoch, progress.progress.step) == (3, 12)
    assert progress.progress.validation_loss != progress.progress.validation_loss
    assert progress.progress.remaining.ToTimedelta().total_seconds() == 1.5
    assert evaluation.evaluation.metrics["r2"] == 0.5


def test_states_only_advance_and_only_through_those_a_trainer_may_report() -> None:
    names = ["PREPARING", "PREPARING", "RUNNING", "PREPARING", "SUCCEEDED", "PUBLISHING", "EXPORTING", "RUNNING"]
    states = [update.state for update in events(*({"state": f"STATE_{name}"} for name in names))]
    assert states == [TrainingJob.STATE_RUNNING, TrainingJob.STATE_EXPORTING]


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[1, 2]",
        b'{"progress": {"epoch": "many"}}',
        b'{"unknown": 1}',
        b"{}",
        b'{"logLine": "smuggled past the limit"}',
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"state": "STATE_' + b"X" * 300_000 + b'"}',
    ],
)
def test_what_is_no_event_is_told_once_and_changes_nothing(line: bytes) -> None:
    told, progress = events(line, {"progress": {"step": "1"}}, line)
    assert "no event" in told.log_line
    assert progress.progress.step == 1


@given(st.lists(st.binary(max_size=40)))
def test_no_bytes_break_the_event_stream(chunks: list[bytes]) -> None:
    delivered: list[TrainingUpdate] = []
    stream = EventStream(delivered.append)
    for chunk in chunks:
        stream.feed(chunk)
    stream.finish()
    assert all(update.WhichOneof("payload") for update in delivered)


def test_evaluations_without_end_do_not_pass_without_end() -> None:
    assert len(events(*({"evaluation": {"testRows": "1"}} for _ in range(100)))) == 16


def test_empty_lines_between_events_are_nothing() -> None:
    assert events(b"", b"  ") == []


def printed(stream_of: list[bytes]) -> tuple[list[str], str]:
    delivered: list[TrainingUpdate] = []
    stream = LogStream(delivered.append, LogLimit())
    for chunk in stream_of:
        stream.feed(chunk)
    stream.finish()
    return [update.log_line for update in delivered], stream.tail()


def test_printed_lines_pass_the_last_one_also_without_a_line_end() -> None:
    lines, tail = printed([b"first\nsec", b"ond\n\nlast"])
    assert lines == ["first", "second", "", "last"]
    assert tail == "first\nsecond\n\nlast"


def test_a_flood_is_told_with_a_count_that_adds_up() -> None:
    chunk = b"line\n" * 10_000
    lines, tail = printed([chunk] * 50)
    gaps = [int(line.split()[1].replace(",", "")) for line in lines if line.startswith("… ")]
    assert sum(gaps) + len(lines) - len(gaps) == 500_000
    assert len(lines) <= 2 * BURST_LINES
    assert tail.endswith("line\nline")


def test_the_tail_is_kept_even_of_what_is_dropped_and_begins_with_a_whole_line() -> None:
    _lines, tail = printed([b"x\n" * 100_000, b"y" * 3_000 + b"\nthe end\n"])
    assert tail == "the end"
