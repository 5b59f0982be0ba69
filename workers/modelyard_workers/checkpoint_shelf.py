"""Checkpoints on the worker's disk, by job: what a job that comes back goes on from, also if nothing was uploaded."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from modelyard.client import blobs
from modelyard.core.logs import get_logger
from modelyard.v1.training_job_pb2 import Checkpoint

_NAME = re.compile(r"(?P<step>\d{12,})-(?P<epoch>\d+)-(?P<digest>[0-9a-f]{64})\.safetensors", re.ASCII)

log = get_logger()


@dataclass(frozen=True, slots=True)
class Shelved:
    """A checkpoint on the shelf, as its name says; the content is checked when it is taken."""

    path: Path
    epoch: int
    step: int
    digest: str

    def message(self) -> Checkpoint:
        """For the gateway; raises FileNotFoundError if it has been removed."""
        size = self.path.stat().st_size
        return Checkpoint(epoch=self.epoch, step=self.step, digest=self.digest, size_bytes=size)


class CheckpointShelf:
    """The newest checkpoint of each job that was here lately. Several processes may share the folder.

    Files are links to those of the attempts, so keeping one costs no copy; on a file system without links none is kept.
    A job's spec and data never change, so whatever lies under its id fits.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def newest(self, job_id: str) -> Shelved | None:
        """The job's checkpoint of the most steps."""
        return max(self._of(job_id), key=lambda shelved: shelved.step, default=None)

    def put(self, job_id: str, file: Path, checkpoint: Checkpoint) -> None:
        """Keeps `file`, whose digest is `checkpoint.digest`, and drops older ones; raises OSError if it cannot.

        `file` may be a link to an open file in /proc.
        """
        folder = self._folder / job_id
        folder.mkdir(mode=0o700, exist_ok=True)
        name = f"{checkpoint.step:012d}-{checkpoint.epoch}-{checkpoint.digest}.safetensors"
        with contextlib.suppress(FileExistsError):
            _link(file, folder, name)
        os.utime(folder)
        for shelved in self._of(job_id):
            if shelved.step < checkpoint.step:
                shelved.path.unlink(missing_ok=True)

    def take(self, shelved: Shelved, target: Path, on_progress: blobs.Progress | None = None) -> bool:
        """Puts the checkpoint at `target`; False, and off the shelf with it, if it is not what its name says."""
        try:
            target.hardlink_to(shelved.path)
            found = blobs.fingerprint(target, on_progress).digest
        except FileNotFoundError:
            return False
        if found == shelved.digest:
            return True
        log.error("a checkpoint has changed on disk; it is not used", digest=shelved.digest, found=found)
        target.unlink()
        shelved.path.unlink(missing_ok=True)
        return False

    def remove(self, job_id: str) -> None:
        """The job is over."""
        shutil.rmtree(self._folder / job_id, ignore_errors=True)

    def sweep(self, retention_s: float) -> int:
        """Removes what has been left alone for so long: its job ended elsewhere, probably. Answers how many jobs."""
        old = [folder for folder in self._folder.iterdir() if _is_older(folder, retention_s)]
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        return len(old)

    def _of(self, job_id: str) -> list[Shelved]:
        try:
            paths = list((self._folder / job_id).iterdir())
        except FileNotFoundError:
            return []
        found = ((path, _NAME.fullmatch(path.name)) for path in paths)
        return [Shelved(path, int(name["epoch"]), int(name["step"]), name["digest"]) for path, name in found if name]


def _link(file: Path, folder: Path, name: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Only where a folder's descriptor is given does Python ask Linux to follow the link in /proc.
        os.link(file, name, dst_dir_fd=descriptor, follow_symlinks=True)
    finally:
        os.close(descriptor)


def _is_older(folder: Path, seconds: float) -> bool:
    try:
        return time.time() - folder.stat().st_mtime > seconds
    except FileNotFoundError:
        return False
