"""Content by its SHA-256, on a local folder or an object store.

Layout: `blobs/sha256/ab/abcd…-…` for complete, verified content (what follows the digest differs whenever it is
written, so a late deletion never meets what was written after it); `uploads/…` for parts of content that is on its way.
A blob is written by streaming its parts through the hash into the object, which the store shows whole or not at all, so
what was hashed is what is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, S3Store, from_url

from modelyard.core.errors import DigestMismatch, Unavailable
from modelyard.core.logs import get_logger
from modelyard.core.settings import MEBIBYTE

from .settings import RegistrySettings

log = get_logger()

_PARTS = "uploads/"
_READ_BYTES = 4 * MEBIBYTE
"""Read from the store at a time: each request to an object store costs a round trip."""
_WRITE_BYTES = 8 * MEBIBYTE
"""Written to the store at a time; S3 takes at most 10,000 pieces of one object."""
_WRITES_AT_ONCE = 3


_REFUSALS = (FileNotFoundError, PermissionError)
"""What writing raises when the bucket or folder itself is gone or closed."""


class PartMissing(Exception):
    """A part of an upload is not in the store; the text is its key."""


def open_store(settings: RegistrySettings) -> ObjectStore:
    """The store that `blob_url` names; a local folder is made if it is missing."""
    if settings.blob_url.startswith("file://"):
        return from_url(settings.blob_url, mkdir=True)
    if not settings.blob_url.startswith("s3://"):
        return from_url(settings.blob_url)
    secret = settings.blob_secret_access_key
    given: dict[str, Any] = {
        "endpoint": settings.blob_endpoint,
        "region": settings.blob_region,
        "access_key_id": settings.blob_access_key_id,
        "secret_access_key": secret.get_secret_value() if secret else None,
    }
    plain = (settings.blob_endpoint or "").startswith("http://")
    return S3Store.from_url(
        settings.blob_url,
        config={key: value for key, value in given.items() if value is not None},  # type: ignore[arg-type]
        client_options={"allow_http": plain},
        retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=30)},
    )


class BlobStore:
    """Blobs and parts of uploads in one store. Raises Unavailable when the store does not answer."""

    def __init__(self, store: ObjectStore, executor: Executor, *, scratch: Path | None = None) -> None:
        """`executor` does the hashing; `scratch` is where remote content is put for `as_file`."""
        self._store = store
        self._executor = executor
        self._scratch = scratch
        self._root = Path(store.prefix or "/") if isinstance(store, LocalStore) else None

    async def put_part(self, key: str, data: memoryview) -> None:
        """Stores a part; `key` comes from `part_key`."""
        with _translated(*_REFUSALS):
            await obstore.put_async(self._store, key, data, use_multipart=False)

    async def delete(self, keys: Iterable[str]) -> None:
        """Removes objects; those that are gone are no error."""
        for key in keys:
            with _translated(), contextlib.suppress(FileNotFoundError):
                await obstore.delete_async(self._store, key)

    async def has(self, key: str) -> bool:
        """Whether there is such an object."""
        with _translated():
            try:
                await obstore.head_async(self._store, key)
            except FileNotFoundError:
                return False
        return True

    async def parts_older_than(self, age: timedelta) -> AsyncIterator[list[str]]:
        """Keys of parts that were stored so long ago, a batch at a time."""
        limit = datetime.now(UTC) - age
        with _translated():
            async for objects in obstore.list(self._store, _PARTS):
                yield [entry["path"] for entry in objects if entry["last_modified"] < limit]

    async def assemble(self, digest: str, part_keys: Sequence[str], key: str) -> None:
        """Makes the parts the object `key`, which comes from `blob_key`.

        Raises DigestMismatch, and stores nothing, if their SHA-256 is another one, and PartMissing if a part is.
        """
        with _translated(*_REFUSALS):
            await obstore.put_async(
                self._store, key, self._verified(digest, part_keys),
                use_multipart=True, chunk_size=_WRITE_BYTES, max_concurrency=_WRITES_AT_ONCE,
            )  # fmt: skip
        if self._root is not None:
            await self._run(_sync_to_disk, self._root / key)

    async def _verified(self, digest: str, part_keys: Sequence[str]) -> AsyncIterator[bytes]:
        """The parts' bytes; the store discards the object when this raises."""
        hasher = hashlib.sha256()
        for key in part_keys:
            try:
                stored = await obstore.get_async(self._store, key)
            except FileNotFoundError as error:
                raise PartMissing(key) from error
            async for piece in stored.stream(min_chunk_size=_READ_BYTES):
                data = bytes(piece)
                await self._run(hasher.update, data)
                yield data
        found = hasher.hexdigest()
        if found != digest:
            raise DigestMismatch(
                f"the content's SHA-256 is {found}, announced was {digest}; the upload is discarded",
                metadata={"expected": digest, "found": found, "field": "digest"},
            )

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[memoryview]:
        """The blob's bytes from `start` up to `end`, in pieces of up to 4 MiB. Both must lie within the blob."""
        for first in range(start, end, _READ_BYTES):
            length = min(_READ_BYTES, end - first)
            with _translated():
                piece = await obstore.get_range_async(self._store, key, start=first, length=length)
            if len(piece) != length:
                raise RuntimeError(f"{key} ends at {first + len(piece)}, expected were {end} bytes")
            yield memoryview(piece)

    @contextlib.asynccontextmanager
    async def as_file(self, key: str, size_bytes: int) -> AsyncIterator[Path]:
        """The blob as a local file to read: itself in a local store, else a copy that is removed afterwards."""
        if self._root is not None:
            yield self._root / key
            return
        descriptor, name = await self._run(tempfile.mkstemp, ".blob", "modelyard-", self._scratch)
        try:
            try:
                async for piece in self.read(key, 0, size_bytes):
                    await self._run(_write_all, descriptor, piece)
            finally:
                os.close(descriptor)
            yield Path(name)
        finally:
            await asyncio.shield(self._run(os.unlink, name))

    async def _run(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


def blob_key(digest: str, nonce: str) -> str:
    """Where a blob lies. `nonce` keeps two writers apart, and a deleted blob from the one that comes after it."""
    return f"blobs/sha256/{digest[:2]}/{digest}-{nonce}"


def part_key(upload_id: str, first_byte: int, nonce: str) -> str:
    """Where a part lies. `nonce` keeps two writers of the same bytes apart: only one of them gets into the database."""
    return f"{_PARTS}{upload_id}-{first_byte:015d}-{nonce}"


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync_to_disk(path: Path) -> None:
    """The database is about to say that the blob is there: it must survive a power cut, name and all."""
    for target in (path, path.parent):
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _translated(*others: type[Exception]) -> Iterator[None]:
    """Makes the store's failures, and these others, Unavailable."""
    failures: tuple[type[Exception], ...] = (BaseError, *others)
    try:
        yield
    except failures as error:
        log.exception("the blob store failed")
        raise Unavailable("the blob store does not answer; try again", retry_after=1) from error
