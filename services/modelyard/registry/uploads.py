"""Resumable uploads and downloads of content-addressed blobs.

Bytes are stored in parts as they arrive, the position in SQL, so a broken upload goes on at its `committed_bytes` at
any replica. When the last byte is there the parts are streamed through SHA-256 into the blob, which becomes visible
only if the digest is the announced one.

Any number of callers may send the same content at once. Whoever is behind loses nothing: bytes that are stored already
are skipped, and the first to store the next ones goes on.
"""

from __future__ import annotations

import asyncio
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
    OffsetMismatch,
    ResourceExhausted,
    TooLarge,
    Unavailable,
)

from .blob_store import BlobStore, PartMissing, part_key
from .upload_ledger import Blob, Upload, UploadLedger

MAX_CHUNK_BYTES = 2 * 1024 * 1024
"""Of one message on the way up."""
SENT_CHUNK_BYTES = 1024 * 1024
"""Of one message on the way down."""

_BUSY_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """One message of an upload stream."""

    upload_id: str
    """Needed in the first one."""
    offset: int
    data: bytes


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
            writer = _StreamWriter(self._store, self._ledger, tenant, upload, first.offset, self._limits.part_bytes)
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
            async for piece in self._store.read(digest, offset, end):
                for start in range(0, len(piece), SENT_CHUNK_BYTES):
                    data = bytes(piece[start : start + SENT_CHUNK_BYTES])
                    yield offset, data
                    offset += len(data)

    async def close(self) -> None:
        """Waits for content that is being checked."""
        await asyncio.gather(*self._assemblies.values(), return_exceptions=True)

    async def _finish(self, upload: Upload, tenant: str) -> Upload:
        """Checks the content and makes it a blob, once however many callers ask; goes on if they hang up."""
        if upload.complete:
            return upload
        assembly = self._assemblies.get(upload.id)
        if assembly is None:
            assembly = self._assemblies[upload.id] = asyncio.create_task(self._assemble(upload))
            assembly.add_done_callback(lambda ended: self._forget(upload.id, ended))
        await asyncio.shield(assembly)
        return await self._ledger.get(upload.id, tenant)

    def _forget(self, upload_id: str, assembly: asyncio.Task[None]) -> None:
        del self._assemblies[upload_id]
        if not assembly.cancelled():
            assembly.exception()  # every caller may have hung up: nobody else looks at it then

    async def _assemble(self, upload: Upload) -> None:
        keys = await self._ledger.part_keys(upload)
        if keys is None:
            return  # another replica was faster
        try:
            await self._store.assemble(upload.digest, keys)
        except PartMissing as error:
            if await self._ledger.blob(upload.digest) is not None:
                return  # another replica became faster, and has removed the parts
            await self._ledger.discard(upload.id)
            raise Unavailable("parts of the upload are lost; start it again", retry_after=0) from error
        except DigestMismatch:
            await self._ledger.discard(upload.id)
            await self._store.delete_parts(keys)
            raise
        await self._ledger.complete(upload)
        await self._store.delete_parts(keys)


class _StreamWriter:
    """Gathers one stream's chunks into parts."""

    def __init__(
        self, store: BlobStore, ledger: UploadLedger, tenant: str, upload: Upload, position: int, part_bytes: int
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._tenant = tenant
        self.upload = upload
        """As of the last part."""
        self._position = position
        self._part_bytes = part_bytes
        self._buffer: list[bytes] = []
        self._buffered = 0
        if not 0 <= position <= upload.committed_bytes:
            raise _offset_mismatch(upload, position)

    async def take(self, chunk: Chunk) -> None:
        """Takes the next bytes; stores a part when enough are there."""
        end = self._position + self._buffered
        if len(chunk.data) > MAX_CHUNK_BYTES:
            raise TooLarge(
                f"the chunk has {len(chunk.data)} bytes, at most {MAX_CHUNK_BYTES} are allowed",
                metadata={"limit_bytes": str(MAX_CHUNK_BYTES)},
            )
        if chunk.offset != end:
            raise _offset_mismatch(self.upload, chunk.offset, expected=end)
        if end + len(chunk.data) > self.upload.size_bytes:
            raise InvalidFields.one(
                "data", f"reaches to byte {end + len(chunk.data)}, announced were {self.upload.size_bytes}"
            )
        self._buffer.append(chunk.data)
        self._buffered += len(chunk.data)
        if self._buffered >= self._part_bytes:
            await self.flush()

    async def flush(self) -> None:
        """Stores what is buffered, except for what somebody else has stored meanwhile."""
        data, first = memoryview(b"".join(self._buffer)), self._position
        self._buffer, self._position, self._buffered = [], first + len(data), 0
        while first + len(data) > self.upload.committed_bytes and not self.upload.complete:
            rest = data[self.upload.committed_bytes - first :]
            key = part_key(self.upload.id, self.upload.committed_bytes, secrets.token_hex(4))
            await self._store.put_part(key, rest)
            appended = await self._ledger.append(self.upload, len(rest), key)
            if appended is None:
                await self._store.delete_parts([key])
            self.upload = appended or await self._ledger.get(self.upload.id, self._tenant)


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


def _offset_mismatch(upload: Upload, got: int, *, expected: int | None = None) -> OffsetMismatch:
    where = f"at {expected}" if expected is not None else f"at 0 to {upload.committed_bytes}"
    return OffsetMismatch(
        f"expected bytes {where}, got {got}", metadata={"committed_bytes": str(upload.committed_bytes)}
    )
