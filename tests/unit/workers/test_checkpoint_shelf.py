"""Checkpoints that are kept on the worker."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from modelyard.v1.training_job_pb2 import Checkpoint
from modelyard_workers.checkpoint_shelf import CheckpointShelf


@pytest.fixture
def shelf(tmp_path: Path) -> CheckpointShelf:
    (tmp_path / "shelf").mkdir()
    return CheckpointShelf(tmp_path / "shelf")


def put(shelf: CheckpointShelf, folder: Path, step: int, job: str = "job") -> Path:
    file = folder / f"{job}-{step}"
    file.write_text(f"step {step}")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    shelf.put(job, file, Checkpoint(epoch=3, step=step, digest=digest))
    return file


def test_the_newest_is_found_by_its_name_and_older_ones_are_gone(shelf: CheckpointShelf, tmp_path: Path) -> None:
    put(shelf, tmp_path, 9)
    put(shelf, tmp_path, 10)
    found = shelf.newest("job")
    assert found is not None
    message = found.message()
    assert (message.step, message.epoch, message.size_bytes) == (10, 3, len("step 10"))
    assert len(list((tmp_path / "shelf" / "job").iterdir())) == 1
    assert shelf.newest("other") is None


def test_an_older_one_that_comes_late_is_not_the_newest(shelf: CheckpointShelf, tmp_path: Path) -> None:
    put(shelf, tmp_path, 10)
    put(shelf, tmp_path, 9)
    found = shelf.newest("job")
    assert found is not None
    assert found.step == 10


def test_what_is_kept_outlives_the_file_that_it_was_made_of(shelf: CheckpointShelf, tmp_path: Path) -> None:
    with put(shelf, tmp_path, 10).open("rb") as file:
        digest = hashlib.sha256(b"step 10").hexdigest()
        shelf.put("again", Path(f"/proc/self/fd/{file.fileno()}"), Checkpoint(step=10, digest=digest))
    (tmp_path / "job-10").unlink()
    for job in ("job", "again"):
        found = shelf.newest(job)
        assert found is not None
        assert shelf.take(found, tmp_path / f"taken-{job}")
        assert (tmp_path / f"taken-{job}").read_text() == "step 10"


def test_what_changed_is_not_taken_and_not_offered_again(shelf: CheckpointShelf, tmp_path: Path) -> None:
    put(shelf, tmp_path, 10).write_text("changed")
    found = shelf.newest("job")
    assert found is not None
    assert not shelf.take(found, tmp_path / "taken")
    assert not (tmp_path / "taken").exists()
    assert shelf.newest("job") is None


def test_what_was_removed_meanwhile_is_not_taken(shelf: CheckpointShelf, tmp_path: Path) -> None:
    put(shelf, tmp_path, 10)
    found = shelf.newest("job")
    assert found is not None
    shelf.remove("job")
    assert not shelf.take(found, tmp_path / "taken")


def test_only_what_has_been_left_alone_for_long_is_swept(shelf: CheckpointShelf, tmp_path: Path) -> None:
    put(shelf, tmp_path, 1, "old")
    put(shelf, tmp_path, 1, "new")
    long_ago = time.time() - 1_000
    os.utime(tmp_path / "shelf" / "old", (long_ago, long_ago))
    assert shelf.sweep(900) == 1
    assert shelf.newest("old") is None
    assert shelf.newest("new") is not None
