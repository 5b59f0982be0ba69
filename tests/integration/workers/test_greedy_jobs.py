"""Jobs that take all memory, disk or log there is: each ends with the reason, and the worker takes the next one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelyard.v1.training_job_pb2 import TrainingJob
from modelyard_workers.bell import Bell
from modelyard_workers.doorbell import answer_doorbell
from support.memory_group import memory_group
from support.redis_server import redis_server
from support.required import missing
from support.waiting import eventually_sync
from support.worker_program import WorkerProgram, ring
from support.worker_surroundings import Surroundings

MEBIBYTE = 1024 * 1024
JOIN = ["sh", "-c", 'echo $$ > "$0" && exec "$@"']
"""Enters a control group, then becomes the command."""


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ("eat_memory", "the kernel killed the trainer: memory ran out"),
        ("child_eats_memory", "the kernel killed a process here: memory ran out"),
    ],
)
def test_a_job_that_takes_all_memory_is_killed_with_the_reason_and_the_worker_takes_the_next(
    surroundings: Surroundings, act: str, words: str
) -> None:
    gateway = surroundings.gateway
    with redis_server() as broker, memory_group(600 * MEBIBYTE) as group:
        prefix = [*JOIN, str(group / "cgroup.procs")]
        settings = surroundings.settings(act, broker_url=broker.url)
        with WorkerProgram(settings, surroundings.folder, prefix) as program:
            for job in ("first", "second"):
                name = surroundings.submit(job)
                ring(broker.url, name)
                eventually_sync(lambda name=name: name in gateway.finished)
                failed = gateway.finished[name].failed
                assert failed.reason == TrainingJob.FAILURE_REASON_OUT_OF_MEMORY, (failed, program.log())
                assert words in failed.message
            assert program.terminate() == 0
    assert len(set(gateway.claims)) == 1, "the worker's process was killed too"


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own, with so much room."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        missing("the right to mount a file system", "MODELYARD_MOUNT")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_job_that_fills_the_disk_fails_with_the_reason_and_the_next_one_has_room(
    surroundings: Surroundings, tmp_path: Path
) -> None:
    bell = Bell()
    with small_disk(tmp_path / "disk", 8 * MEBIBYTE) as disk:
        full = surroundings.submit("full")
        answer_doorbell(full, surroundings.settings("checkpoint", "fill_disk", work_dir=disk), bell)
        assert "No space left on device" in surroundings.gateway.finished[full].failed.message
        after = surroundings.submit("after")
        answer_doorbell(after, surroundings.settings("succeed", work_dir=disk), bell)
        assert surroundings.gateway.finished[after].HasField("succeeded")
    bell.close()


def test_a_worker_whose_disk_is_full_gives_the_job_back(surroundings: Surroundings, tmp_path: Path) -> None:
    bell = Bell()
    name = surroundings.submit()
    with small_disk(tmp_path / "disk", MEBIBYTE) as disk:
        settings = surroundings.settings("succeed", work_dir=disk)
        (disk / "junk").write_bytes(bytes(MEBIBYTE - 8 * 4096))
        surroundings.gateway.submit(name, surroundings.store.put(b"x" * MEBIBYTE))
        answer_doorbell(name, settings, bell)
    bell.close()
    assert "No space left on device" in surroundings.gateway.finished[name].released.message


def test_a_gigabyte_of_output_fills_neither_memory_nor_the_jobs_log(surroundings: Surroundings) -> None:
    bell = Bell()
    name = surroundings.submit()
    answer_doorbell(name, surroundings.settings(*["flood"] * 5, "succeed"), bell)
    bell.close()
    assert surroundings.gateway.finished[name].HasField("succeeded")
    assert len(surroundings.gateway.log_lines) < 10_000
    assert any("log lines dropped" in line for line in surroundings.gateway.log_lines)
