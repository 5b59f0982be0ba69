"""The checkpoints of a running attempt on their way to the artifact store, in a thread beside the training."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from modelyard.client import blobs
from modelyard.core.errors import RemoteError
from modelyard.core.logs import get_logger
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.v1.training_job_pb2 import Checkpoint

from .checkpoint_shelf import CheckpointShelf
from .outcomes import BrokenResult, open_regular

FOLDER = "checkpoints"
"""Where the trainer puts them, in its work folder."""

_AGAIN_S = 30.0  # after a failure; sooner if the trainer saves the next one
_PATIENCE_S = 20.0
_CLOSE_S = 1.0

log = get_logger()


@dataclass(frozen=True, slots=True)
class _Saved:
    """A file that the trainer has finished."""

    path: Path
    epoch: int
    step: int


class _GivenUp(Exception):
    """Ends an upload that is not wanted any more."""


class Checkpoints:
    """Hashes, keeps on the shelf, announces, uploads and tells each new checkpoint. Use it as a context manager.

    Only the newest matters: while one is on its way the next may wait, and takes the place of the one that waited.
    Whatever goes wrong here costs steps that are done again after a fault, never the training that runs.
    """

    def __init__(
        self,
        stub: ArtifactServiceStub,
        workdir: Path,
        shelf: CheckpointShelf,
        job_id: str,
        announce: Callable[[Checkpoint], None],
        tell: Callable[[Checkpoint], None],
        may_tell: Callable[[], bool],
    ) -> None:
        """`announce` asks the gateway to keep a blob, before the store is asked for it, so that what is found there
        stays. It raises RemoteError. `tell` hears of each checkpoint that the store has. Both are called in the thread.

        `may_tell`: whether there is somebody to tell. If not, nothing is uploaded: a blob that nobody has heard of
        would stay in the store for ever.
        """
        self._stub = stub
        self._workdir = workdir
        self._shelf = shelf
        self._job_id = job_id
        self._announce = announce
        self._tell = tell
        self._may_tell = may_tell
        self._changed = threading.Condition()
        self._waiting: _Saved | None = None
        self._busy = False
        self._hurry = False
        self._closed = False
        self._failed_at: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"checkpoints {job_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=_CLOSE_S)  # what does not end by then tells nobody anything

    def saved(self, checkpoint: Checkpoint) -> None:
        """The trainer has finished the file of this checkpoint; never blocks."""
        self.offer(self._workdir / FOLDER / f"{checkpoint.step:012d}.safetensors", checkpoint)

    def offer(self, path: Path, checkpoint: Checkpoint) -> None:
        """Takes the file of a checkpoint that the store may not have; never blocks."""
        with self._changed:
            if self._waiting is None or checkpoint.step >= self._waiting.step:
                self._waiting = _Saved(path, checkpoint.epoch, checkpoint.step)
                self._failed_at = None
                self._changed.notify_all()

    def finish(self, wait_s: float) -> bool:
        """Waits until the newest is told, or on the shelf if there is nobody to tell; whether that was in time."""
        deadline = time.monotonic() + wait_s
        with self._changed:
            self._hurry, self._failed_at = True, None
            self._changed.notify_all()
            while (self._waiting is not None or self._busy) and self._thread.is_alive():
                left = deadline - time.monotonic()
                if left <= 0:
                    log.warning("the last checkpoint could not be uploaded in time", wait_s=wait_s)
                    return False
                self._changed.wait(left)
        return True

    def _run(self) -> None:
        while (saved := self._next()) is not None:
            try:
                done = self._bring(saved)
            except Exception:  # a bug must not end the thread: the next checkpoint may fare better
                done = True
                if not self._closed:  # else the channel is closed, and nobody cares
                    log.exception("a checkpoint was lost")
            with self._changed:
                self._busy = False
                if not done and self._waiting is None:
                    self._waiting, self._failed_at = saved, time.monotonic()
                self._changed.notify_all()

    def _next(self) -> _Saved | None:
        """Waits for the next one to bring; None at the end."""
        with self._changed:
            while not self._closed:
                wait_s = self._wait_s()
                if self._waiting is not None and wait_s is not None and wait_s <= 0:
                    saved, self._waiting, self._busy = self._waiting, None, True
                    return saved
                self._changed.wait(wait_s)
        return None

    def _wait_s(self) -> float | None:
        """Seconds until the waiting one is due; None if there is none."""
        if self._waiting is None:
            return None
        if self._failed_at is None:
            return 0.0
        return self._failed_at + (1.0 if self._hurry else _AGAIN_S) - time.monotonic()

    def _bring(self, saved: _Saved) -> bool:
        """Whether this one is done with."""
        try:
            with _opened(saved.path) as file:
                content = blobs.fingerprint(file, self._on_progress)
                checkpoint = Checkpoint(
                    epoch=saved.epoch, step=saved.step, digest=content.digest, size_bytes=content.size_bytes
                )
                self._keep(file, checkpoint)
                if self._may_tell():
                    self._announce(checkpoint)
                    blobs.upload_file(self._stub, file, self._on_upload, content=content, patience_s=_PATIENCE_S)
                    self._told(checkpoint)
        except _GivenUp:
            return True
        except (BrokenResult, OSError) as error:
            log.warning("a checkpoint cannot be read", step=saved.step, error=str(error))
        except RemoteError as error:
            log.warning("a checkpoint was not uploaded; it is tried again", step=saved.step, error=str(error))
            return False
        return True

    def _keep(self, file: Path, checkpoint: Checkpoint) -> None:
        try:
            self._shelf.put(self._job_id, file, checkpoint)
        except OSError as error:
            log.warning("a checkpoint is not kept on this worker", step=checkpoint.step, error=str(error))

    def _told(self, checkpoint: Checkpoint) -> None:
        with self._changed:
            if self._closed:
                return
            self._tell(checkpoint)
        log.info("checkpoint uploaded", step=checkpoint.step, size_bytes=checkpoint.size_bytes)

    def _on_progress(self, _done_bytes: int, _total_bytes: int, /) -> None:
        """Ends what is not wanted any more: at the end, and when the last one waits behind an older one."""
        if self._closed or (self._hurry and self._waiting is not None):
            raise _GivenUp

    def _on_upload(self, done_bytes: int, total_bytes: int, /) -> None:
        self._on_progress(done_bytes, total_bytes)
        if not self._may_tell():
            raise _GivenUp


@contextmanager
def _opened(path: Path) -> Iterator[Path]:
    """The file as it is now, under a name that stays its own whatever happens to `path`."""
    descriptor = open_regular(path)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)
