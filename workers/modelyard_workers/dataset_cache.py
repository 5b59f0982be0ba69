"""Datasets on the worker's disk, by digest, so that the next job need not fetch them again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from modelyard.client import blobs
from modelyard.core.logs import get_logger
from modelyard.core.names import check_digest
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub

log = get_logger()


class DatasetCache:
    """Files named by the SHA-256 of their content, verified whenever they are used.

    Every entry is a second link to a file in an attempt's folder: it appears complete, and removing it hurts nobody
    who uses it. Several processes may share the folder. On a file system without links nothing is kept.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes

    def fetch(
        self,
        stub: ArtifactServiceStub,
        digest: str,
        target: Path,
        on_progress: blobs.Progress | None = None,
        *,
        patience_s: float = blobs.DEFAULT_PATIENCE_S,
    ) -> None:
        """Puts the dataset at `target`, read-only, on the cache's file system. Raises what `download_blob` raises."""
        cached = self._folder / check_digest(digest, "digest")
        if self._reuse(cached, digest, target, on_progress):
            return
        size = blobs.download_blob(stub, digest, target, on_progress, patience_s=patience_s)
        log.info("dataset downloaded", digest=digest, size_bytes=size)
        target.chmod(0o400)
        with contextlib.suppress(OSError):  # there already, or no links here
            cached.hardlink_to(target)
        self._evict()

    def _reuse(self, cached: Path, digest: str, target: Path, on_progress: blobs.Progress | None) -> bool:
        try:
            target.hardlink_to(cached)
            found = blobs.fingerprint(target, on_progress).digest
        except FileNotFoundError:
            return False
        if found == digest:
            os.utime(target)  # the same file as `cached`: used just now
            return True
        log.error("a cached dataset has changed on disk; it is fetched again", digest=digest, found=found)
        target.unlink()
        cached.unlink(missing_ok=True)
        return False

    def _evict(self) -> None:
        """Removes the files used longest ago until the rest fits."""
        files = []
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                files.append((path.stat().st_mtime, path.stat().st_size, path))
        excess = sum(size for _used, size, _path in files) - self._limit_bytes
        for _used, size, path in sorted(files):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size
