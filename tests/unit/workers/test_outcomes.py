"""How an attempt's end is judged."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from modelyard.v1.training_job_pb2 import TrainingAttempt, TrainingJob
from modelyard_workers.interruptions import Interruption
from modelyard_workers.outcomes import (
    MESSAGE_CHARACTERS,
    BrokenResult,
    blame_memory,
    failure,
    failure_of,
    interrupted,
    open_regular,
    read_result,
)
from modelyard_workers.supervision import Exit


@pytest.mark.parametrize(
    ("code", "memory_ran_out", "reason", "words"),
    [
        (1, False, TrainingJob.FAILURE_REASON_INTERNAL, "exit code 1"),
        (0, True, TrainingJob.FAILURE_REASON_INTERNAL, "exit code 0"),
        (1, True, TrainingJob.FAILURE_REASON_OUT_OF_MEMORY, "killed a process here: memory ran out"),
        (-signal.SIGKILL, True, TrainingJob.FAILURE_REASON_OUT_OF_MEMORY, "memory ran out"),
        (-signal.SIGSEGV, True, TrainingJob.FAILURE_REASON_USER_CODE, "killed by signal 11 (SIGSEGV)"),
        (-40, False, TrainingJob.FAILURE_REASON_USER_CODE, "killed by signal 40"),
    ],
)
def test_a_death_without_a_result_has_a_reason_and_the_last_words(
    code: int, memory_ran_out: bool, reason: TrainingJob.FailureReason.ValueType, words: str
) -> None:
    outcome = failure_of(Exit(code, None, "the last line"), memory_ran_out=memory_ran_out)
    assert outcome.failed.reason == reason
    assert words in outcome.failed.message
    assert outcome.failed.message.endswith("the last line")


def test_a_trainer_that_somebody_killed_is_no_fault_of_its_job() -> None:
    outcome = failure_of(Exit(-signal.SIGKILL, None, "the last line"), memory_ran_out=False)
    assert outcome.released.cause == TrainingAttempt.END_CAUSE_WORKER_FAULT
    assert outcome.released.message == "somebody killed the trainer (SIGKILL); its last words:\nthe last line"


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (TrainingJob.FAILURE_REASON_USER_CODE, TrainingJob.FAILURE_REASON_OUT_OF_MEMORY),
        (TrainingJob.FAILURE_REASON_INTERNAL, TrainingJob.FAILURE_REASON_OUT_OF_MEMORY),
        (TrainingJob.FAILURE_REASON_DIVERGED, TrainingJob.FAILURE_REASON_DIVERGED),
    ],
)
def test_a_failure_that_a_killed_child_explains_is_for_memory(
    reason: TrainingJob.FailureReason.ValueType, told: TrainingJob.FailureReason.ValueType
) -> None:
    blamed = blame_memory(failure(reason, "the loader (pid 7) exited unexpectedly")).failed
    assert blamed.reason == told
    assert blamed.message.endswith("the loader (pid 7) exited unexpectedly")


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (Interruption.SHUTDOWN, TrainingAttempt.END_CAUSE_WORKER_STOPPED),
        (Interruption.PREEMPTED, TrainingAttempt.END_CAUSE_PREEMPTED),
        (Interruption.PAUSED, TrainingAttempt.END_CAUSE_PAUSED),
        (Interruption.FAULT, TrainingAttempt.END_CAUSE_WORKER_FAULT),
    ],
)
def test_a_job_that_goes_on_later_is_given_back_with_the_cause(
    reason: Interruption, cause: TrainingAttempt.EndCause.ValueType
) -> None:
    outcome = interrupted(reason, "in words")
    assert outcome is not None
    assert (outcome.released.cause, outcome.released.message) == (cause, "in words")


def test_every_interruption_has_an_outcome_or_nobody_to_tell() -> None:
    silent = {reason for reason in Interruption if interrupted(reason, "") is None}
    assert silent == {Interruption.OUT_OF_CONTACT, Interruption.STALE}


def test_a_message_is_cut_to_what_the_api_allows() -> None:
    message = failure(TrainingJob.FAILURE_REASON_DATA, "x" * 10_000).failed.message
    assert (len(message), message[-1]) == (MESSAGE_CHARACTERS, "…")


def test_no_result_is_none_and_a_good_one_is_read(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
    (tmp_path / "result.json").write_text('{"failed": {"reason": "FAILURE_REASON_DIVERGED", "message": "NaN"}}')
    result = read_result(tmp_path)
    assert result is not None
    assert result.failed.reason == TrainingJob.FAILURE_REASON_DIVERGED


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 100_000, "malformed"),
        (b"{}", "neither"),
        (b'{"cancelled": {}}', "neither"),
        (b'{"succeeded": {"digets": "ab"}}', "malformed"),
        (b" " * (5 * 1024 * 1024), "larger"),
    ],
)
def test_an_unusable_result_says_what_is_wrong_with_it(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(BrokenResult, match=complaint):
        read_result(tmp_path)


def test_only_plain_files_are_opened_and_nothing_hangs(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    complaints = {"link": "cannot be read", "folder": "is not a plain file", "pipe": "is not a plain file"}
    for name, complaint in complaints.items():
        with pytest.raises(BrokenResult, match=f"{name} {complaint}"):
            open_regular(tmp_path / name)
    with pytest.raises(BrokenResult, match="left no none"):
        open_regular(tmp_path / "none")
