"""The pod's artifacts on disk: by digest, verified each time they are taken, the least recently used deleted first.

blobs/DIGEST/model.onnx   complete and verified when it was put there; alone in its folder, so that a graph which
                          names a file beside itself finds none
pairs/DIGEST-DIGEST/      for a graph with its weights in a file: hard links to both, the second under the very name
                          that the graph has for it; made anew by each process
partial/DIGEST            a download that goes on where it stopped
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import shutil
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from modelyard.core.errors import DigestMismatch, ResourceExhausted, WrongState
from modelyard.core.logs import get_logger

from .downloads import download

if TYPE_CHECKING:  # the class exists for type checkers only
    from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceAsyncStub

FILE_NAME = "model.onnx"
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

log = get_logger()


@dataclass(frozen=True, slots=True)
class _Stored:
    """Something in the cache that may be deleted if nobody holds its digest."""

    digest: str
    path: Path
    size_bytes: int
    used_ns: int


class ArtifactCache:
    """A folder of artifacts below a size limit. One process each; `close` lets go of it."""

    def __init__(self, folder: Path, stub: ArtifactServiceAsyncStub, *, limit_bytes: int) -> None:
        """Raises WrongState if another process uses the folder, and OSError if it cannot be made."""
        self._stub = stub
        self._limit_bytes = limit_bytes
        self._held: Counter[str] = Counter()
        self._downloading: dict[str, int] = {}
        """Expected size by digest: what is on its way needs its room already."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._deleting = threading.Lock()
        """Held while room is made: two that look at once would both delete for both."""
        self._blobs, self._partial = folder / "blobs", folder / "partial"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._pairs = folder / "pairs"
        for part in (self._blobs, self._partial, self._pairs):
            part.mkdir(mode=0o700, exist_ok=True)
        self._lock_file = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock_file.close()
            raise WrongState(f"another process uses the cache folder {folder}") from error
        for pair in self._pairs.iterdir():
            shutil.rmtree(pair)

    def close(self) -> None:
        """Lets another process use the folder."""
        self._lock_file.close()

    async def fetch(self, digest: str, size_bytes: int) -> Path:
        """The artifact as a file whose SHA-256 has just been checked, downloaded if need be.

        It stays until `release`. Raises DigestMismatch for wrong content, ResourceExhausted if it does not fit,
        RemoteError if the registry does not give it, OSError if the disk is full.
        """
        self._held[digest] += 1
        try:
            async with self._locks.setdefault(digest, asyncio.Lock()):
                path = self._path(digest)
                if not await asyncio.to_thread(self._is_good, path, digest):
                    await self._download(path, digest, size_bytes)
                return path
        except BaseException:
            self.release(digest)
            raise

    def pair(self, digest: str, weights_digest: str, location: str) -> Path:
        """The graph in a folder with its weights, which it finds there as `location`. Both must have been fetched.

        Blocking. Raises OSError if the disk does not let it.
        """
        folder = self._pairs / f"{digest}-{weights_digest}"
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, source in ((FILE_NAME, digest), (location, weights_digest)):
            # By a rename, also over what is there: a file that another session has mapped is never written to.
            link = folder / f"{name}.{threading.get_ident()}.part"
            link.unlink(missing_ok=True)
            link.hardlink_to(self._path(source))
            link.replace(folder / name)
            link.unlink(missing_ok=True)  # a rename between two links to the same file does nothing
        return folder / FILE_NAME

    def release(self, digest: str) -> None:
        """Ends what one `fetch` began; from then on the artifact may be deleted to make room."""
        self._held[digest] -= 1
        if not self._held[digest]:
            del self._held[digest]
            for pair in self._pairs.glob(f"{digest}-*"):
                shutil.rmtree(pair)  # links: the files stay, and whoever has them mapped keeps them

    def size_bytes(self) -> int:
        """Bytes on disk, unfinished downloads without those that run. Looks at every file: call it in a thread."""
        return sum(item.size_bytes for item in self._stored())

    def _path(self, digest: str) -> Path:
        return self._blobs / digest / FILE_NAME

    def _is_good(self, path: Path, digest: str) -> bool:
        """Whether the file is there with this content. Other content is deleted: the disk, or somebody, changed it."""
        try:
            found = _sha256(path)
        except FileNotFoundError:
            return False
        if found == digest:
            os.utime(path)
            return True
        log.error("a cached artifact has changed on disk; it is downloaded again", digest=digest, found=found)
        path.unlink()
        return False

    async def _download(self, path: Path, digest: str, size_bytes: int) -> None:
        self._downloading[digest] = size_bytes
        partial = self._partial / digest
        try:
            await asyncio.to_thread(self._make_room)
            await download(self._stub, digest, size_bytes, partial)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            partial.replace(path)
        except DigestMismatch:
            partial.unlink(missing_ok=True)
            raise
        except OSError as error:
            if error.errno in _DISK_FULL:
                await asyncio.to_thread(self._make_room_on_disk, size_bytes, partial)
            raise
        finally:
            del self._downloading[digest]

    def _make_room(self) -> None:
        """Deletes the least recently used artifacts that nobody holds, until what is on its way fits."""
        with self._deleting:
            coming = sum(self._downloading.values())
            excess = coming + sum(item.size_bytes for item in self._stored()) - self._limit_bytes
            excess -= self._delete_idle(excess)
        if excess > 0:
            raise ResourceExhausted(
                f"the cache of {self._limit_bytes} bytes is too small by {excess} bytes for what is served and the "
                f"{coming} bytes that are to come"
            )

    def _make_room_on_disk(self, size_bytes: int, partial: Path) -> None:
        """For the next try, after the disk was full: it has less room than the limit says, or others fill it."""
        with self._deleting:
            if not self._delete_idle(size_bytes):
                partial.unlink(missing_ok=True)  # half an artifact is of no use, and others need the room

    def _delete_idle(self, size_bytes: int) -> int:
        """Deletes the least recently used artifacts that nobody holds, up to so many bytes; answers how many it was."""
        deleted = 0
        idle = sorted((item for item in self._stored() if item.digest not in self._held), key=lambda item: item.used_ns)
        for item in idle:
            if deleted >= size_bytes:
                break
            shutil.rmtree(item.path) if item.path.is_dir() else item.path.unlink()
            log.info("deleted from the cache", digest=item.digest, size_bytes=item.size_bytes)
            deleted += item.size_bytes
        return deleted

    def _stored(self) -> list[_Stored]:
        """Everything in the cache but what is on its way."""
        paths = (*self._blobs.iterdir(), *self._partial.iterdir())
        found = (_stored_at(path) for path in paths if path.name not in self._downloading)
        return [item for item in found if item is not None]


def _stored_at(path: Path) -> _Stored | None:
    """An artifact's folder or an unfinished download; None if it has just gone: downloads end while others look."""
    try:
        facts = path.stat()
        if not path.is_dir():
            return _Stored(path.name, path, facts.st_size, facts.st_mtime_ns)
        files = [file.stat() for file in path.iterdir()]
    except FileNotFoundError:
        return None
    used_ns = max((file.st_mtime_ns for file in files), default=facts.st_mtime_ns)
    return _Stored(path.name, path, sum(file.st_size for file in files), used_ns)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
