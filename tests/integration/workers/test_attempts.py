"""Attempts from doorbell to conclusion: real gRPC, real subprocesses, every fault a trainer can think of."""

from __future__ import annotations

import hashlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from modelyard.core import channels
from modelyard.v1 import worker_service_pb2 as pb
from modelyard.v1.training_job_pb2 import TrainingAttempt, TrainingJob
from modelyard_workers.bell import Bell
from modelyard_workers.doorbell import answer_doorbell
from modelyard_workers.gateway import Gateway
from support.concurrency import meanwhile
from support.faulty_trainer import MODEL
from support.processes import is_alive
from support.waiting import eventually_sync
from support.worker_surroundings import DATASET, Surroundings

Failure = pb.TrainingFailure
Reason = TrainingJob.FailureReason
Directive = pb.ReportTrainingJobResponse.Directive


@pytest.fixture
def bell() -> Iterator[Bell]:
    bell = Bell()
    yield bell
    bell.close()


def failure_of(surroundings: Surroundings, name: str) -> Failure:
    outcome = surroundings.gateway.finished[name]
    assert outcome.WhichOneof("outcome") == "failed", outcome
    return outcome.failed


def release_of(surroundings: Surroundings, name: str) -> pb.TrainingReleased:
    outcome = surroundings.gateway.finished[name]
    assert outcome.WhichOneof("outcome") == "released", outcome
    return outcome.released


def attempt_folders(surroundings: Surroundings) -> list[Path]:
    return list((surroundings.folder / "work" / "attempts").iterdir())


def test_a_good_training_is_reported_uploaded_and_finished(surroundings: Surroundings, bell: Bell) -> None:
    name = surroundings.submit()
    answer_doorbell(name, surroundings.settings("check_inputs", "succeed"), bell)
    gateway, digest = surroundings.gateway, hashlib.sha256(MODEL).hexdigest()
    artifact = gateway.finished[name].succeeded
    assert (artifact.digest, artifact.size_bytes, artifact.library_versions["torch"]) == (digest, len(MODEL), "0")
    assert gateway.finished[name].attempt == 1
    assert surroundings.store.blobs[digest] == MODEL
    assert gateway.states == ["PREPARING", "RUNNING", "EVALUATING", "EXPORTING", "PUBLISHING"]
    assert gateway.steps == [1, 2, 3]
    assert [u.evaluation.metrics["r2"] for u in gateway.updates if u.HasField("evaluation")] == [0.5]
    assert attempt_folders(surroundings) == []


def test_the_trainer_gets_its_inputs_a_private_folder_and_nothing_of_the_workers_own(
    surroundings: Surroundings, bell: Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_WORKER_BROKER_URL", "redis://:secret@host/0")
    # As in a pool process: what is ignored there must not be ignored in the trainer.
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        answer_doorbell(surroundings.submit(), surroundings.settings("check_inputs", "succeed"), bell)
    finally:
        signal.signal(signal.SIGTERM, before)
    digest = hashlib.sha256(DATASET).hexdigest()
    assert surroundings.gateway.log_lines == [
        f"job trainingJobs/job1 dataset {digest} {digest}",
        "mode 0o700 cwd True",
        "own variables []",
        "session leader True sigterm SIG_DFL",
        "oom 1000",
    ]


def test_a_job_that_is_not_ours_is_left_alone(surroundings: Surroundings, bell: Bell) -> None:
    answer_doorbell("trainingJobs/taken", surroundings.settings("succeed"), bell)
    answer_doorbell("../../etc/passwd", surroundings.settings("succeed"), bell)
    assert len(surroundings.gateway.claims) == 1
    assert not surroundings.gateway.reports


def test_the_job_whose_turn_it_is_is_worked_on_not_the_one_that_rang(surroundings: Surroundings, bell: Bell) -> None:
    first, second = surroundings.submit("first"), surroundings.submit("second")
    surroundings.gateway.instead[second] = first
    answer_doorbell(second, surroundings.settings("check_inputs", "succeed", node="rack1"), bell)
    assert list(surroundings.gateway.finished) == [first]
    assert surroundings.gateway.log_lines[0].startswith(f"job {first} ")
    assert surroundings.gateway.nodes == ["rack1"]
    assert surroundings.gateway.claims[0].startswith("rack1/")


def test_the_second_job_on_a_dataset_does_not_download_it_again(surroundings: Surroundings, bell: Bell) -> None:
    for job in ("first", "second"):
        answer_doorbell(surroundings.submit(job), surroundings.settings("succeed"), bell)
    assert len(surroundings.gateway.finished) == 2
    assert len(surroundings.store.read_offsets) == 1


def test_a_trainers_own_failure_is_passed_on(surroundings: Surroundings, bell: Bell) -> None:
    name = surroundings.submit()
    answer_doorbell(name, surroundings.settings("fail"), bell)
    assert failure_of(surroundings, name) == Failure(reason=Reason.FAILURE_REASON_DATA, message="too few rows")


@pytest.mark.parametrize(
    ("act", "reason", "message"),
    [
        ("crash", Reason.FAILURE_REASON_INTERNAL, "exit code 1 and no result.*something in the trainer broke"),
        ("nothing", Reason.FAILURE_REASON_INTERNAL, "exit code 0 and no result"),
        ("broken_result", Reason.FAILURE_REASON_INTERNAL, "result.json is malformed"),
        ("wrong_digest", Reason.FAILURE_REASON_INTERNAL, "model.onnx has the SHA-256"),
        ("linked_model", Reason.FAILURE_REASON_INTERNAL, "model.onnx cannot be read"),
    ],
)
def test_a_trainer_that_leaves_no_good_result_fails_its_job_with_the_reason(
    surroundings: Surroundings, bell: Bell, act: str, reason: Reason.ValueType, message: str
) -> None:
    name = surroundings.submit()
    answer_doorbell(name, surroundings.settings(act), bell)
    failure = failure_of(surroundings, name)
    assert failure.reason == reason
    assert re.search(message, failure.message, flags=re.DOTALL), failure.message
    assert set(surroundings.store.blobs) == {surroundings.dataset_digest}


def test_a_job_whose_trainer_somebody_killed_is_given_back(surroundings: Surroundings, bell: Bell) -> None:
    name = surroundings.submit()
    answer_doorbell(name, surroundings.settings("kill_self"), bell)
    released = release_of(surroundings, name)
    assert released.cause == TrainingAttempt.END_CAUSE_WORKER_FAULT
    assert re.search(r"somebody killed the trainer.*about to die", released.message, flags=re.DOTALL)


def test_a_program_that_does_not_exist_is_named(surroundings: Surroundings, bell: Bell) -> None:
    name = surroundings.submit()
    answer_doorbell(name, surroundings.settings(trainer_command=("/no/such/program",)), bell)
    assert "/no/such/program" in failure_of(surroundings, name).message


def test_two_hundred_megabytes_of_output_become_a_few_lines_and_a_count(surroundings: Surroundings, bell: Bell) -> None:
    name = surroundings.submit()
    answer_doorbell(name, surroundings.settings("flood", "succeed"), bell)
    assert surroundings.gateway.finished[name].HasField("succeeded")
    lines = surroundings.gateway.log_lines
    told = [int(line.split()[1].replace(",", "")) for line in lines if line.startswith("… ")]
    printed = (200_000_000 // (43 * 25_000) + 1) * 25_000
    assert sum(told) + len(lines) - len(told) == printed
    assert len(lines) < 5_000


def test_long_lines_are_cut_and_control_characters_made_harmless(surroundings: Surroundings, bell: Bell) -> None:
    answer_doorbell(surroundings.submit(), surroundings.settings("long_line", "succeed"), bell)
    assert surroundings.gateway.log_lines == ["x" * 4_095 + "…", "\ufffd\ufffd\ufffdred"]


def test_garbage_among_the_events_is_told_once_and_ignored(surroundings: Surroundings, bell: Bell) -> None:
    name = surroundings.submit()
    answer_doorbell(name, surroundings.settings("garbage", "succeed"), bell)
    assert surroundings.gateway.finished[name].HasField("succeeded")
    assert surroundings.gateway.states == ["PREPARING", "RUNNING", "EVALUATING", "EXPORTING", "PUBLISHING"]
    assert [line for line in surroundings.gateway.log_lines if "is no event" in line]
    assert len(surroundings.gateway.log_lines) == 1


def test_a_process_that_the_trainer_left_behind_is_killed_and_holds_nothing_up(
    surroundings: Surroundings, bell: Bell
) -> None:
    name = surroundings.submit()
    answer_doorbell(name, surroundings.settings("start_child", "succeed"), bell)
    assert surroundings.gateway.finished[name].HasField("succeeded")
    child = surroundings.gateway.logged_number("child")
    assert child is not None
    eventually_sync(lambda: not is_alive(child))


def test_cancel_stops_the_trainer_gently_and_finishes_as_cancelled(surroundings: Surroundings, bell: Bell) -> None:
    name = surroundings.submit()

    def cancel() -> None:
        eventually_sync(lambda: surroundings.gateway.logged_number("waiting"))
        surroundings.gateway.directive = pb.ReportTrainingJobResponse.DIRECTIVE_CANCEL

    with meanwhile(cancel):
        answer_doorbell(name, surroundings.settings("obey_sigterm", "wait", trainer_grace_s=20), bell)
    assert surroundings.gateway.finished[name].HasField("cancelled")
    assert "stopped by SIGTERM" in surroundings.gateway.log_lines


def test_a_trainer_that_ignores_sigterm_is_killed_after_its_grace(surroundings: Surroundings, bell: Bell) -> None:
    name = surroundings.submit()
    surroundings.gateway.directive = pb.ReportTrainingJobResponse.DIRECTIVE_CANCEL
    answer_doorbell(name, surroundings.settings("ignore_sigterm", "start_child", "wait"), bell)
    assert surroundings.gateway.finished[name].HasField("cancelled")


@pytest.mark.parametrize(
    ("directive", "ends"),
    [
        (Directive.DIRECTIVE_PAUSE, TrainingAttempt.END_CAUSE_PAUSED),
        (Directive.DIRECTIVE_PREEMPT, TrainingAttempt.END_CAUSE_PREEMPTED),
        (Directive.DIRECTIVE_DEADLINE, Reason.FAILURE_REASON_DEADLINE),
        (Directive.DIRECTIVE_CANCEL, None),
    ],
)
def test_what_the_gateway_wants_stops_the_trainer_with_a_checkpoint_and_ends_the_attempt_accordingly(
    surroundings: Surroundings, bell: Bell, directive: Directive.ValueType, ends: int | None
) -> None:
    name, gateway = surroundings.submit(), surroundings.gateway

    def tell() -> None:
        eventually_sync(lambda: gateway.logged_number("waiting"))
        gateway.directive = directive

    with meanwhile(tell):
        answer_doorbell(name, surroundings.settings("checkpoint_on_sigterm", "wait", trainer_grace_s=20), bell)
    outcome = gateway.finished[name]
    ended = {"released": outcome.released.cause, "failed": outcome.failed.reason, "cancelled": None}
    assert ended[outcome.WhichOneof("outcome") or ""] == ends
    assert [checkpoint.step for checkpoint in gateway.checkpoints] == [10]


@pytest.mark.parametrize("acts", [("close_pipes", "sleep"), ("ignore_sigterm", "start_child", "close_pipes", "sleep")])
def test_a_trainer_that_hangs_without_a_word_ends_by_its_deadline_with_all_it_started(
    surroundings: Surroundings, bell: Bell, acts: tuple[str, ...]
) -> None:
    name, gateway = surroundings.submit(), surroundings.gateway

    def tell() -> None:
        eventually_sync(lambda: gateway.logged_number("closing"))
        gateway.directive = Directive.DIRECTIVE_DEADLINE

    with meanwhile(tell):
        answer_doorbell(name, surroundings.settings(*acts), bell)
    assert failure_of(surroundings, name).reason == Reason.FAILURE_REASON_DEADLINE
    pids = [gateway.logged_number(word) for word in ("closing", "child")]
    eventually_sync(lambda: not any(is_alive(pid) for pid in pids if pid))
    gateway.directive = Directive.DIRECTIVE_CONTINUE
    answer_doorbell(surroundings.submit("next"), surroundings.settings("succeed"), bell)
    assert gateway.finished["trainingJobs/next"].HasField("succeeded")


def test_a_stale_attempt_kills_the_trainer_at_once_and_says_nothing_more(
    surroundings: Surroundings, bell: Bell
) -> None:
    name = surroundings.submit()
    trainer: list[int] = []

    def take_away() -> None:
        trainer.append(eventually_sync(lambda: surroundings.gateway.logged_number("waiting") or 0))
        surroundings.gateway.stale = True

    # With a grace that the test's own time limit would not survive.
    with meanwhile(take_away):
        answer_doorbell(name, surroundings.settings("ignore_sigterm", "wait", trainer_grace_s=3_600), bell)
    assert not is_alive(trainer[0])
    assert surroundings.gateway.finished == {}
    assert attempt_folders(surroundings) == []


def test_a_gateway_that_is_away_for_a_while_misses_nothing(surroundings: Surroundings, bell: Bell) -> None:
    name, gateway = surroundings.submit(), surroundings.gateway

    def interrupt() -> None:
        eventually_sync(lambda: len(gateway.steps) > 20)
        surroundings.gateway_server.stop()
        before = len(gateway.steps)
        assert_unreachable(surroundings, 2.0)
        surroundings.gateway_server.start()
        eventually_sync(lambda: len(gateway.steps) > before + 20)
        gateway.lost_answers = 3
        eventually_sync(lambda: gateway.lost_answers == 0)
        (surroundings.folder / "work" / "enough").touch()

    with meanwhile(interrupt):
        answer_doorbell(name, surroundings.settings("progress_until_told", "succeed"), bell)
    last = next(int(line.split()[2]) for line in gateway.log_lines if line.startswith("last step"))
    assert gateway.steps == [*range(1, last + 1), 1, 2, 3]
    assert gateway.finished[name].HasField("succeeded")


def assert_unreachable(surroundings: Surroundings, seconds: float) -> None:
    """Tries to reach the gateway for so long, in vain."""
    with (
        channels.sync_channel(surroundings.gateway_server.address) as channel,
        pytest.raises(grpc.FutureTimeoutError),
    ):
        grpc.channel_ready_future(channel).result(timeout=seconds)


def test_out_of_contact_for_too_long_stops_the_trainer(surroundings: Surroundings, bell: Bell) -> None:
    name, gateway = surroundings.submit(), surroundings.gateway
    trainer: list[int] = []

    def vanish() -> None:
        trainer.append(eventually_sync(lambda: surroundings.gateway.logged_number("waiting") or 0))
        surroundings.gateway_server.stop()

    with meanwhile(vanish):
        answer_doorbell(name, surroundings.settings("wait", out_of_contact_limit_s=1.0), bell)
    assert not is_alive(trainer[0])
    assert gateway.finished == {}


def test_shutdown_stops_the_trainer_gently_and_gives_the_job_back(surroundings: Surroundings, bell: Bell) -> None:
    name, gateway = surroundings.submit(), surroundings.gateway

    def shut_down() -> None:
        eventually_sync(lambda: surroundings.gateway.logged_number("waiting"))
        bell.ring()

    with meanwhile(shut_down):
        answer_doorbell(name, surroundings.settings("obey_sigterm", "wait", trainer_grace_s=20), bell)
    assert "stopped by SIGTERM" in gateway.log_lines
    assert release_of(surroundings, name).cause == TrainingAttempt.END_CAUSE_WORKER_STOPPED
    assert attempt_folders(surroundings) == []


@pytest.mark.parametrize("shutting_down", [True, False])
def test_a_trainer_that_somebody_else_terminates_is_given_back_only_if_the_worker_is_stopped_too(
    surroundings: Surroundings, bell: Bell, shutting_down: bool
) -> None:
    name = surroundings.submit()

    def terminate() -> None:
        trainer = eventually_sync(lambda: surroundings.gateway.logged_number("waiting") or 0)
        os.kill(trainer, signal.SIGTERM)
        eventually_sync(lambda: not is_alive(trainer))
        if shutting_down:
            bell.ring()

    with meanwhile(terminate):
        answer_doorbell(name, surroundings.settings("obey_sigterm", "wait"), bell)
    if shutting_down:
        assert release_of(surroundings, name).cause == TrainingAttempt.END_CAUSE_WORKER_STOPPED
    else:
        assert "exit code 143" in failure_of(surroundings, name).message


def test_a_worker_whose_lease_thread_dies_stops_the_trainer_and_says_so(
    surroundings: Surroundings, bell: Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(Gateway, "report", broken)
    name = surroundings.submit()
    answer_doorbell(name, surroundings.settings("wait"), bell)
    assert "lease thread failed: ValueError" in release_of(surroundings, name).message


def test_a_work_folder_that_cannot_be_used_gives_the_job_back_with_the_reason(
    surroundings: Surroundings, bell: Bell
) -> None:
    name = surroundings.submit()
    (surroundings.folder / "file").touch()
    answer_doorbell(name, surroundings.settings("succeed", work_dir=surroundings.folder / "file" / "work"), bell)
    released = release_of(surroundings, name)
    assert released.cause == TrainingAttempt.END_CAUSE_WORKER_FAULT
    assert "Not a directory" in released.message


def test_a_corrupted_dataset_is_refused_before_the_trainer_sees_it(surroundings: Surroundings, bell: Bell) -> None:
    name = surroundings.submit()
    surroundings.store.faults.corrupt = True
    answer_doorbell(name, surroundings.settings("succeed"), bell)
    released = release_of(surroundings, name)
    assert released.cause == TrainingAttempt.END_CAUSE_WORKER_FAULT
    assert surroundings.dataset_digest in released.message
    assert surroundings.gateway.states == ["PREPARING"]
    assert list((surroundings.folder / "work" / "datasets").iterdir()) == []


def test_broken_transfers_are_resumed(surroundings: Surroundings, bell: Bell) -> None:
    name = surroundings.submit()
    surroundings.store.faults.broken_downloads = 1
    surroundings.store.faults.broken_uploads = 2
    answer_doorbell(name, surroundings.settings("succeed"), bell)
    assert surroundings.gateway.finished[name].HasField("succeeded")


def test_finishing_is_repeated_until_it_is_answered(surroundings: Surroundings, bell: Bell) -> None:
    name = surroundings.submit()
    surroundings.gateway.lost_finishes = 3
    answer_doorbell(name, surroundings.settings("succeed"), bell)
    assert surroundings.gateway.finished[name].HasField("succeeded")


def test_a_result_that_the_gateway_refuses_fails_the_job_visibly(surroundings: Surroundings, bell: Bell) -> None:
    name = surroundings.submit()
    surroundings.gateway.refused_outcomes = {"succeeded"}
    answer_doorbell(name, surroundings.settings("succeed"), bell)
    assert "the graph is malformed" in failure_of(surroundings, name).message


def test_a_gateway_that_is_away_when_the_bell_rings_is_asked_again(surroundings: Surroundings, bell: Bell) -> None:
    name = surroundings.submit()
    surroundings.gateway_server.stop()
    with meanwhile(surroundings.gateway_server.start):
        answer_doorbell(name, surroundings.settings("succeed"), bell)
    assert surroundings.gateway.finished[name].HasField("succeeded")


def test_a_token_file_that_is_away_for_a_moment_costs_nothing(surroundings: Surroundings, bell: Bell) -> None:
    name, gateway = surroundings.submit(), surroundings.gateway
    token = surroundings.token_file.read_text()
    seen = [-1]

    def reports_have_stopped() -> bool:
        seen.append(len(gateway.reports))
        return seen[-1] == seen[-2]

    def rotate() -> None:
        eventually_sync(lambda: len(gateway.steps) > 5)
        surroundings.token_file.unlink()
        eventually_sync(reports_have_stopped, interval=1.5)
        surroundings.token_file.write_text(token)
        eventually_sync(lambda: len(gateway.reports) > seen[-1])
        (surroundings.folder / "work" / "enough").touch()

    with meanwhile(rotate):
        answer_doorbell(name, surroundings.settings("progress_until_told", "succeed"), bell)
    assert gateway.finished[name].HasField("succeeded")
