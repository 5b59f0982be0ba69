"""The folders of a worker: one private folder per attempt, removed at its end, and what outlives it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.core.logs import get_logger

_LOCK = ".lock"

log = get_logger()


class WorkFolder:
    """A worker's folder on disk. Several workers on one host may share it."""

    def __init__(self, root: Path) -> None:
        self._attempts = root / "attempts"
        self.datasets = root / "datasets"
        self.checkpoints = root / "checkpoints"
        for folder in (root, self._attempts, self.datasets, self.checkpoints):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The umask may have taken rights away, and an older folder may have too many.
        root.chmod(0o700)

    @contextmanager
    def attempt(self, name: str) -> Iterator[Path]:
        """A new, private folder with a `tmp` in it, for the length of a `with`."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._attempts))
        descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            (folder / "tmp").mkdir(mode=0o700)
            yield folder
        finally:
            os.close(descriptor)
            _remove(folder)

    def sweep(self) -> int:
        """Removes the folders of attempts whose process was killed; answers how many."""
        abandoned = [folder for folder in self._attempts.iterdir() if _is_abandoned(folder)]
        for folder in abandoned:
            _remove(folder)
        return len(abandoned)


def _is_abandoned(folder: Path) -> bool:
    """Whether nobody holds the folder's lock; the kernel gives it back however its holder ended."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # being made or removed by another process right now
    except OSError:
        return True
    with contextlib.closing(os.fdopen(descriptor, "rb")) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        log.warning("an attempt's folder could not be removed", folder=str(folder))
