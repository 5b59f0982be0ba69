"""One stream of an upload: chunks come in, parts go out."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from modelyard.core.errors import InvalidFields, OffsetMismatch, TooLarge

from .background import Background
from .blob_store import BlobStore, part_key
from .upload_ledger import Upload, UploadLedger

MAX_CHUNK_BYTES = 2 * 1024 * 1024
"""Of one message."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One message of an upload stream."""

    upload_id: str
    """Needed in the first one."""
    offset: int
    data: bytes


class PartStore:
    """Stores parts and records them. A caller who hangs up in between costs nothing that has arrived."""

    def __init__(self, store: BlobStore, ledger: UploadLedger, background: Background, tenant: str) -> None:
        self._store = store
        self._ledger = ledger
        self._background = background
        self._tenant = tenant

    async def store(self, upload: Upload, data: memoryview) -> Upload:
        """Stores bytes that begin at `upload.committed_bytes`; the upload as it is then, by these or others' bytes."""
        return await self._background.run(self._store_and_record(upload, data))

    async def _store_and_record(self, upload: Upload, data: memoryview) -> Upload:
        # Stored under a name of its own, then recorded if nobody else has got there: no writer disturbs another one.
        key = part_key(upload.id, upload.committed_bytes, secrets.token_hex(4))
        await self._store.put_part(key, data)
        appended = await self._ledger.append(upload, len(data), key)
        if appended is None:
            await self._store.delete([key])
        return appended or await self._ledger.get(upload.id, self._tenant)


class StreamWriter:
    """Gathers one stream's chunks into parts."""

    def __init__(self, parts: PartStore, upload: Upload, position: int, part_bytes: int) -> None:
        """`position`: offset of the stream's first byte; raises OffsetMismatch if it would leave a gap."""
        self._parts = parts
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
            self.upload = await self._parts.store(self.upload, data[self.upload.committed_bytes - first :])


def _offset_mismatch(upload: Upload, got: int, *, expected: int | None = None) -> OffsetMismatch:
    where = f"at {expected}" if expected is not None else f"at 0 to {upload.committed_bytes}"
    return OffsetMismatch(
        f"expected bytes {where}, got {got}", metadata={"committed_bytes": str(upload.committed_bytes)}
    )
