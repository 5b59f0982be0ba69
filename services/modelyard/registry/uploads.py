"""Resumable uploads and downloads of content-addressed blobs.

Bytes are stored in parts as they arrive, the position in SQL, so a broken upload goes on at its `committed_bytes` at
any replica. When the last byte is there the parts are streamed through SHA-256 into the blob, which becomes visible
only if the digest is the announced one.

Any number of callers may send the same content at once. Whoever is behind loses nothing: bytes that are stored already
are skipped, and the first to store the next ones goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from modelyard.core.errors import (
    DeadlineExceeded,
    DigestMismatch,
    InvalidFields,
    NotFound,
    ResourceExhausted,
    TooLarge,
    Unavailable,
)

from .background import Background
from .blob_store import BlobStore, PartMissing, blob_key
from .upload_ledger import Blob, Upload, UploadLedger
from .upload_stream import Chunk, PartStore, StreamWriter

SENT_CHUNK_BYTES = 1024 * 1024
"""Of one message on the way down."""

_BUSY_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bounds on uploads and downloads."""

    blob_bytes: int
    part_bytes: int
    tenant_uploads: int
    tenant_downloads: int
    idle_s: float
    """A stream that sends nothing for so long is ended, so that it does not keep its slot."""


class Blobs:
    """The artifact store's use cases."""

    def __init__(self, store: BlobStore, ledger: UploadLedger, limits: UploadLimits) -> None:
        self._store = store
        self._ledger = ledger
        self._limits = limits
        self._upload_slots = _Slots(limits.tenant_uploads, "uploads")
        self._download_slots = _Slots(limits.tenant_downloads, "downloads")
        self._background = Background()
        self._assemblies: dict[str, asyncio.Task[None]] = {}

    async def start(self, tenant: str, digest: str, size_bytes: int) -> Upload:
        """Announces content; raises TooLarge, or InvalidFields if the blob is there with another size."""
        if size_bytes < 0:
            raise InvalidFields.one("size_bytes", f"expected 0 or more, got {size_bytes}")
        if size_bytes > self._limits.blob_bytes:
            raise TooLarge(
                f"the content has {size_bytes} bytes, at most {self._limits.blob_bytes} are allowed",
                metadata={"limit_bytes": str(self._limits.blob_bytes)},
            )
        blob = await self._ledger.blob(digest)
        if blob is not None and blob.size_bytes != size_bytes:
            raise InvalidFields.one("size_bytes", f"the blob is there with {blob.size_bytes} bytes, got {size_bytes}")
        upload = await self._ledger.start(tenant, digest, size_bytes)
        # Nothing will be sent for empty content, so this is the moment to check it.
        return await self._finish(upload, tenant) if not size_bytes and not upload.complete else upload

    async def get(self, tenant: str, upload_id: str) -> Upload:
        """How far an upload is; raises NotFound."""
        return await self._ledger.get(upload_id, tenant)

    async def write(self, tenant: str, chunks: AsyncIterator[Chunk]) -> Upload:
        """Stores a stream's bytes; the upload as it is at the stream's end.

        Raises InvalidFields, NotFound, OffsetMismatch, TooLarge for a chunk, ResourceExhausted when too many uploads
        run, and DigestMismatch when all bytes are there and are not the announced content: the upload is gone then.
        """
        with self._upload_slots.taken(tenant):
            arriving = _lively(chunks, self._limits.idle_s)
            first = await anext(arriving, None)
            if first is None:
                raise InvalidFields.one("name", "expected uploads/{upload} in the first message; there was none")
            upload = await self._ledger.get(first.upload_id, tenant)
            parts = PartStore(self._store, self._ledger, self._background, tenant)
            writer = StreamWriter(parts, upload, first.offset, self._limits.part_bytes)
            if not upload.complete:
                await writer.take(first)
                async for chunk in arriving:
                    await writer.take(chunk)
                    if writer.upload.complete:
                        break
                await writer.flush()
            return await self._finish(writer.upload, tenant) if writer.upload.has_all_bytes else writer.upload

    async def blob(self, digest: str) -> Blob:
        """A complete blob; raises NotFound."""
        blob = await self._ledger.blob(digest)
        if blob is None:
            raise NotFound.resource(f"blobs/{digest}")
        return blob

    async def read(self, tenant: str, digest: str, offset: int, limit: int) -> AsyncIterator[tuple[int, bytes]]:
        """The blob's bytes with their offsets, from `offset`, at most `limit` of them (0: to the end)."""
        blob = await self.blob(digest)
        if not 0 <= offset <= blob.size_bytes:
            raise InvalidFields.one("offset", f"expected 0 to {blob.size_bytes}, the blob's size; got {offset}")
        if limit < 0:
            raise InvalidFields.one("limit", f"expected 0 or more, got {limit}")
        end = min(blob.size_bytes, offset + limit) if limit else blob.size_bytes
        with self._download_slots.taken(tenant):
            async for piece in self._store.read(blob.key, offset, end):
                for start in range(0, len(piece), SENT_CHUNK_BYTES):
                    data = bytes(piece[start : start + SENT_CHUNK_BYTES])
                    yield offset, data
                    offset += len(data)

    async def delete(self, digest: str, etag: str = "") -> bool:
        """Removes a blob; answers whether there was one. Raises WrongState if something refers to it, Conflict if
        `etag` is given and is not the blob's.

        Whoever was told before that the content is there, and has not used it yet, uploads it again.
        """
        key = await self._ledger.delete_blob(digest, etag)
        if key is None:
            return False
        # From here on there is no such blob; if its object cannot be removed now, the sweeper does it later.
        with contextlib.suppress(Unavailable):
            await self._delete_object(key)
        return True

    async def _delete_object(self, key: str) -> None:
        """Removes a loose object."""
        await self._store.delete([key])
        await self._ledger.forget_object(key)

    async def close(self) -> None:
        """Waits for what is still being stored or checked."""
        await self._background.close()

    async def _finish(self, upload: Upload, tenant: str) -> Upload:
        """Checks the content and makes it a blob, once however many callers ask; goes on if they hang up."""
        if upload.complete:
            return upload
        assembly = self._assemblies.get(upload.id)
        if assembly is None:
            assembly = self._assemblies[upload.id] = self._background.start(self._assemble(upload))
            assembly.add_done_callback(lambda _: self._assemblies.pop(upload.id))
        await asyncio.shield(assembly)
        return await self._ledger.get(upload.id, tenant)

    async def _assemble(self, upload: Upload) -> None:
        keys = await self._ledger.part_keys(upload)
        if keys is None:
            return  # another replica was faster
        key = blob_key(upload.digest, secrets.token_hex(4))
        await self._ledger.expect_object(key)
        try:
            await self._store.assemble(upload.digest, keys, key)
        except PartMissing as error:
            if await self._ledger.blob(upload.digest) is not None:
                return  # another replica became faster, and has removed the parts
            await self._ledger.discard(upload.id)
            raise Unavailable("parts of the upload are lost; start it again", retry_after=0) from error
        except DigestMismatch:
            await self._ledger.discard(upload.id)
            await self._store.delete(keys)
            raise
        if not await self._ledger.complete(upload, key):
            raise Unavailable("storing the content took too long; try again", retry_after=0)
        await self._store.delete(keys)
        blob = await self._ledger.blob(upload.digest)
        if blob is None or blob.key != key:
            await self._delete_object(key)  # another replica was faster


class _Slots:
    """So many for each tenant at a time; the next one is told to come back instead of waiting with its stream open."""

    def __init__(self, count: int, what: str) -> None:
        self._count = count
        self._what = what
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, tenant: str) -> Iterator[None]:
        """One slot for the length of the block; raises ResourceExhausted if none is free."""
        if self._taken[tenant] >= self._count:
            raise ResourceExhausted(
                f"{self._count} {self._what} are running already; try again", retry_after=_BUSY_RETRY_S
            )
        self._taken[tenant] += 1
        try:
            yield
        finally:
            self._taken[tenant] -= 1
            if not self._taken[tenant]:
                del self._taken[tenant]


async def _lively(chunks: AsyncIterator[Chunk], idle_s: float) -> AsyncIterator[Chunk]:
    """The same chunks; raises DeadlineExceeded when the next one keeps us waiting."""
    while True:
        try:
            async with asyncio.timeout(idle_s):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise DeadlineExceeded(f"the stream sent nothing for {idle_s:g} s; go on at committed_bytes") from None
        if chunk is None:
            return
        yield chunk
