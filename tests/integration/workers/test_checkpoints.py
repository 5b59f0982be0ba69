"""Checkpoints of an attempt: up to the store, kept on the worker, and what the next attempt goes on from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelyard.v1 import worker_service_pb2 as pb
from modelyard.v1.training_job_pb2 import Checkpoint, TrainingAttempt
from modelyard_workers.bell import Bell
from modelyard_workers.doorbell import answer_doorbell
from modelyard_workers.workspace import WorkFolder
from support.concurrency import meanwhile
from support.waiting import eventually_sync
from support.worker_gateway import WorkerGateway
from support.worker_surroundings import Surroundings

PAUSE = pb.ReportTrainingJobResponse.DIRECTIVE_PAUSE
CONTINUE = pb.ReportTrainingJobResponse.DIRECTIVE_CONTINUE


@pytest.fixture
def bell() -> Iterator[Bell]:
    bell = Bell()
    yield bell
    bell.close()


def state(step: int) -> bytes:
    """The content of the trainer's checkpoint after so many steps."""
    return f"state after step {step}".encode()


def checkpoint(surroundings: Surroundings, step: int) -> Checkpoint:
    """A checkpoint that the store has."""
    digest = surroundings.store.put(state(step))
    return Checkpoint(attempt=1, epoch=1, step=step, digest=digest, size_bytes=len(state(step)))


def kept(surroundings: Surroundings, job_id: str = "job1") -> list[Path]:
    folder = WorkFolder(surroundings.folder / "work").checkpoints / job_id
    return sorted(folder.iterdir()) if folder.exists() else []


@contextmanager
def paused_after(surroundings: Surroundings, steps: int) -> Iterator[None]:
    """Pauses the job that runs in the block when it waits, having reported the checkpoint after so many steps."""
    gateway = surroundings.gateway

    def pause() -> None:
        eventually_sync(lambda: gateway.logged_number("waiting"))
        if steps:
            eventually_sync(lambda: any(saved.step == steps for saved in gateway.checkpoints))
        gateway.directive = PAUSE

    with meanwhile(pause):
        yield
    gateway.directive = CONTINUE


@contextmanager
def stopped_when_waiting(gateway: WorkerGateway, bell: Bell) -> Iterator[None]:
    """Stops the worker that runs in the block when its trainer waits."""

    def stop() -> None:
        eventually_sync(lambda: gateway.logged_number("waiting"))
        bell.ring()

    with meanwhile(stop):
        yield


def test_a_checkpoint_is_told_when_the_store_has_it_with_what_was_really_found(
    surroundings: Surroundings, bell: Bell
) -> None:
    with paused_after(surroundings, 10):
        answer_doorbell(surroundings.submit(), surroundings.settings("checkpoint", "wait"), bell)
    (told,) = surroundings.gateway.checkpoints
    digest = hashlib.sha256(state(10)).hexdigest()
    assert (told.epoch, told.step, told.digest, told.size_bytes) == (1, 10, digest, len(state(10)))
    assert surroundings.store.blobs[digest] == state(10)


def test_of_many_checkpoints_the_newest_gets_there_and_is_kept(surroundings: Surroundings, bell: Bell) -> None:
    acts = ["checkpoint"] * 30
    with paused_after(surroundings, 300):
        answer_doorbell(surroundings.submit(), surroundings.settings(*acts, "wait"), bell)
    steps = [told.step for told in surroundings.gateway.checkpoints]
    assert steps == sorted(set(steps))
    assert [path.read_bytes() for path in kept(surroundings)] == [state(300)]


def test_a_link_to_somebody_elses_file_is_no_checkpoint(surroundings: Surroundings, bell: Bell) -> None:
    name = surroundings.submit()
    answer_doorbell(name, surroundings.settings("linked_checkpoint", "succeed"), bell)
    assert surroundings.gateway.finished[name].HasField("succeeded")
    assert surroundings.gateway.checkpoints == []
    assert kept(surroundings) == []


def test_the_next_attempt_goes_on_from_the_stores_checkpoint_on_another_worker(
    surroundings: Surroundings, bell: Bell
) -> None:
    name = surroundings.submit(attempt=2, checkpoint=checkpoint(surroundings, 70))
    answer_doorbell(name, surroundings.settings("resume", "succeed"), bell)
    assert "resumed after step 70" in surroundings.gateway.log_lines
    assert surroundings.gateway.finished[name].HasField("succeeded")


def test_a_checkpoint_that_is_here_is_not_downloaded(surroundings: Surroundings, bell: Bell) -> None:
    with paused_after(surroundings, 10):
        answer_doorbell(surroundings.submit(), surroundings.settings("checkpoint", "wait"), bell)
    downloads = len(surroundings.store.read_offsets)
    told = surroundings.gateway.checkpoints[0]
    answer_doorbell(surroundings.submit(attempt=2, checkpoint=told), surroundings.settings("resume", "succeed"), bell)
    assert "resumed after step 10" in surroundings.gateway.log_lines
    assert len(surroundings.store.read_offsets) == downloads


def test_a_newer_checkpoint_that_never_got_to_the_store_is_gone_on_from_and_told(
    surroundings: Surroundings, bell: Bell
) -> None:
    name, gateway = surroundings.submit(), surroundings.gateway

    def lose_the_store_and_pause() -> None:
        eventually_sync(lambda: gateway.logged_number("waiting"))
        eventually_sync(lambda: gateway.checkpoints)
        surroundings.store.faults.away = True
        gateway.directive = PAUSE

    with meanwhile(lose_the_store_and_pause):
        acts = ("checkpoint", "checkpoint_on_sigterm", "wait")
        answer_doorbell(name, surroundings.settings(*acts, trainer_grace_s=20, checkpoint_upload_s=0.5), bell)
    assert gateway.finished[name].released.cause == TrainingAttempt.END_CAUSE_PAUSED
    assert [told.step for told in gateway.checkpoints] == [10]
    surroundings.store.faults.away, gateway.directive = False, CONTINUE
    surroundings.submit(attempt=2, checkpoint=gateway.checkpoints[0])
    with paused_after(surroundings, 20):
        answer_doorbell(name, surroundings.settings("resume", "wait"), bell)
    assert "resumed after step 20" in gateway.log_lines
    assert surroundings.store.blobs[gateway.checkpoints[-1].digest] == state(20)


def test_a_checkpoint_that_changed_on_this_workers_disk_is_fetched_again(
    surroundings: Surroundings, bell: Bell
) -> None:
    with paused_after(surroundings, 10):
        answer_doorbell(surroundings.submit(), surroundings.settings("checkpoint", "wait"), bell)
    kept(surroundings)[0].write_bytes(b"state after step 99")
    told = surroundings.gateway.checkpoints[0]
    answer_doorbell(surroundings.submit(attempt=2, checkpoint=told), surroundings.settings("resume", "succeed"), bell)
    assert "resumed after step 10" in surroundings.gateway.log_lines


def test_without_its_checkpoint_a_job_begins_anew_and_says_so(surroundings: Surroundings, bell: Bell) -> None:
    gone = Checkpoint(step=70, digest="0" * 64, size_bytes=1)
    name = surroundings.submit(attempt=2, checkpoint=gone)
    answer_doorbell(name, surroundings.settings("resume", "succeed"), bell)
    assert surroundings.gateway.log_lines == [
        "… the checkpoint after step 70 cannot be had; the training begins anew",
        "resumed after step 0",
    ]
    assert surroundings.gateway.finished[name].HasField("succeeded")


def test_a_store_that_is_away_for_long_gives_the_job_back(surroundings: Surroundings, bell: Bell) -> None:
    saved = checkpoint(surroundings, 70)
    answer_doorbell(surroundings.submit("before"), surroundings.settings("succeed"), bell)  # has the dataset now
    surroundings.store.faults.away = True
    name = surroundings.submit(attempt=2, checkpoint=saved)
    answer_doorbell(name, surroundings.settings("resume", "succeed", out_of_contact_limit_s=0.5), bell)
    assert surroundings.gateway.finished[name].released.cause == TrainingAttempt.END_CAUSE_WORKER_FAULT


def test_a_worker_that_is_stopped_gives_the_job_back_with_its_checkpoint(
    surroundings: Surroundings, bell: Bell
) -> None:
    name, gateway = surroundings.submit(), surroundings.gateway
    with stopped_when_waiting(gateway, bell):
        answer_doorbell(name, surroundings.settings("checkpoint_on_sigterm", "wait", trainer_grace_s=20), bell)
    assert gateway.finished[name].released.cause == TrainingAttempt.END_CAUSE_WORKER_STOPPED
    assert [told.step for told in gateway.checkpoints] == [10]


def test_out_of_contact_the_checkpoint_stays_here_and_nobody_is_told(surroundings: Surroundings, bell: Bell) -> None:
    gateway = surroundings.gateway

    def vanish() -> None:
        eventually_sync(lambda: gateway.logged_number("waiting"))
        surroundings.gateway_server.stop()

    with meanwhile(vanish):
        settings = surroundings.settings(
            "checkpoint_on_sigterm", "wait", trainer_grace_s=20, out_of_contact_limit_s=1.0
        )
        answer_doorbell(surroundings.submit(), settings, bell)
    assert gateway.finished == {}
    assert [path.read_bytes() for path in kept(surroundings)] == [state(10)]
    assert set(surroundings.store.blobs) == {surroundings.dataset_digest}


@pytest.mark.parametrize("end", ["succeed", "fail"])
def test_when_the_job_is_over_nothing_of_it_is_kept(surroundings: Surroundings, bell: Bell, end: str) -> None:
    with paused_after(surroundings, 10):
        answer_doorbell(surroundings.submit(), surroundings.settings("checkpoint", "wait"), bell)
    assert kept(surroundings)
    answer_doorbell(surroundings.submit(attempt=2), surroundings.settings("resume", end), bell)
    assert kept(surroundings) == []


def test_a_store_that_comes_back_gets_the_checkpoint_while_the_training_goes_on(
    surroundings: Surroundings, bell: Bell
) -> None:
    surroundings.store.faults.broken_uploads = 1
    with paused_after(surroundings, 10):
        answer_doorbell(surroundings.submit(), surroundings.settings("checkpoint", "wait"), bell)
    assert surroundings.store.blobs[surroundings.gateway.checkpoints[0].digest] == state(10)


def test_a_checkpoint_whose_content_is_just_being_removed_is_announced_and_uploaded_again(
    surroundings: Surroundings, bell: Bell
) -> None:
    gateway = surroundings.gateway
    gateway.refused_announcements = 2
    with stopped_when_waiting(gateway, bell):
        answer_doorbell(
            surroundings.submit(), surroundings.settings("checkpoint_on_sigterm", "wait", trainer_grace_s=20), bell
        )
    assert gateway.refused_announcements == 0
    (told,) = gateway.checkpoints
    assert [announced.digest for announced in gateway.announced] == [told.digest]
    assert surroundings.store.blobs[told.digest] == state(10)


def test_a_checkpoint_is_announced_before_the_store_is_asked_for_it(surroundings: Surroundings, bell: Bell) -> None:
    gateway = surroundings.gateway
    gateway.refused_announcements = 1_000
    with stopped_when_waiting(gateway, bell):
        acts = ("checkpoint_on_sigterm", "wait")
        answer_doorbell(
            surroundings.submit(), surroundings.settings(*acts, trainer_grace_s=20, checkpoint_upload_s=0.5), bell
        )
    assert set(surroundings.store.blobs) == {surroundings.dataset_digest}
    assert gateway.checkpoints == []
