"""Which checkpoint an attempt goes on from: the newest complete one that can be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc

from modelyard.client import blobs
from modelyard.core.errors import DigestMismatch, InvalidFields, RemoteError
from modelyard.core.logs import get_logger
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.v1.training_job_pb2 import Checkpoint, TrainingJob

from .checkpoint_shelf import CheckpointShelf, Shelved

CHECKPOINT_FILE = "checkpoint.safetensors"
"""In the trainer's work folder; its digest is checked."""

log = get_logger()


class Resumption:
    """Finds the checkpoint of one attempt."""

    def __init__(
        self,
        stub: ArtifactServiceStub,
        shelf: CheckpointShelf,
        say: Callable[[str], None],
        on_progress: blobs.Progress,
        patience_s: float,
    ) -> None:
        """`say` takes log lines of the job."""
        self._stub = stub
        self._shelf = shelf
        self._say = say
        self._on_progress = on_progress
        self._patience_s = patience_s

    def fetch(self, job: TrainingJob, workdir: Path) -> Shelved | None:
        """Puts the checkpoint, if there is one, into `workdir`; answers it if the gateway does not know of it.

        Raises RemoteError if the store cannot be reached for too long.
        """
        target, job_id = workdir / CHECKPOINT_FILE, job.name.rpartition("/")[2]
        known = job.checkpoint if job.checkpoint.digest else None
        ours = self._shelf.newest(job_id)
        if ours is not None and _is_newest(ours, known) and self._take(ours, target):
            return ours if known is None or ours.step > known.step else None
        if known is not None and self._download(known, target):
            self._keep(job_id, target, known)
        elif known is not None and not (ours is not None and self._take(ours, target)):
            self._say(f"the checkpoint after step {known.step:,} cannot be had; the training begins anew")
        return None

    def _take(self, ours: Shelved, target: Path) -> bool:
        taken = self._shelf.take(ours, target, self._on_progress)
        if taken:
            log.info("going on from a checkpoint of this worker", step=ours.step)
        return taken

    def _download(self, known: Checkpoint, target: Path) -> bool:
        """Whether it could be had; raises RemoteError if that may change."""
        try:
            blobs.download_blob(self._stub, known.digest, target, self._on_progress, patience_s=self._patience_s)
        except (DigestMismatch, InvalidFields) as error:
            log.warning("the checkpoint is broken", step=known.step, error=str(error))
            return False
        except RemoteError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise
            log.warning("the checkpoint is gone", step=known.step, digest=known.digest)
            return False
        log.info("checkpoint downloaded", step=known.step, digest=known.digest)
        return True

    def _keep(self, job_id: str, target: Path, known: Checkpoint) -> None:
        try:
            self._shelf.put(job_id, target, known)
        except OSError as error:
            log.warning("a checkpoint is not kept on this worker", step=known.step, error=str(error))


def _is_newest(ours: Shelved, known: Checkpoint | None) -> bool:
    if known is None or ours.step > known.step:
        return True
    return ours.step == known.step and ours.digest == known.digest
