"""The registry's uploads without transport: on a database, a store of any kind, and small parts."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Self

import obstore
from obstore.store import ObjectStore

from modelyard.core.database import Database
from modelyard.registry.blob_store import BlobStore
from modelyard.registry.sweeping import Sweeper
from modelyard.registry.upload_ledger import Upload, UploadLedger
from modelyard.registry.upload_stream import Chunk
from modelyard.registry.uploads import Blobs, UploadLimits

PART_BYTES = 64
TENANT = "default"
LIMITS = UploadLimits(blob_bytes=1_000_000, part_bytes=PART_BYTES, tenant_uploads=8, tenant_downloads=8, idle_s=60)


class BlobDesk:
    """One replica. `other` makes another one on the same database and store."""

    def __init__(self, database: Database, store: ObjectStore, *, expiry_s: float = 3600, **limits: Any) -> None:
        self.database = database
        self.objects = store
        self._executor = ThreadPoolExecutor(2)
        self.store = BlobStore(store, self._executor)
        self.ledger = UploadLedger(database, expiry_s=expiry_s)
        self.blobs = Blobs(self.store, self.ledger, replace(LIMITS, **limits))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.blobs.close()
        self._executor.shutdown()

    def other(self, **options: Any) -> BlobDesk:
        """Another replica."""
        return BlobDesk(self.database, self.objects, **options)

    def sweeper(self, *, orphan_age_s: float = 0) -> Sweeper:
        """Sweeps orphans at once, unless told otherwise."""
        return Sweeper(
            self.database, self.store, self.ledger,
            interval_s=3600, orphan_age_s=orphan_age_s, request_retention_s=3600,
            pod_retention_s=3600, shadow_retention_s=3600,
        )  # fmt: skip

    async def start(self, content: bytes, *, tenant: str = TENANT) -> Upload:
        """Announces content."""
        return await self.blobs.start(tenant, hashlib.sha256(content).hexdigest(), len(content))

    async def write(
        self,
        upload: Upload,
        content: bytes,
        *,
        offset: int | None = None,
        end: int | None = None,
        chunk_bytes: int = 10,
        tenant: str = TENANT,
    ) -> Upload:
        """Sends `content` from `offset` (default: where the upload is) to `end` in chunks."""
        first = upload.committed_bytes if offset is None else offset
        return await self.blobs.write(tenant, stream(upload, content[:end], first, chunk_bytes))

    async def upload(self, content: bytes) -> Upload:
        """Makes content a blob."""
        return await self.write(await self.start(content), content)

    async def read(self, digest: str, offset: int = 0, limit: int = 0) -> bytes:
        """A blob's bytes."""
        return b"".join([data async for _offset, data in self.blobs.read(TENANT, digest, offset, limit)])

    async def keys(self, prefix: str = "") -> list[str]:
        """What is in the store."""
        return [entry["path"] async for batch in obstore.list(self.objects, prefix) for entry in batch]


async def stream(upload: Upload, content: bytes, offset: int, chunk_bytes: int) -> AsyncIterator[Chunk]:
    """The messages of an upload stream; one without data if there is none. Others get a turn between them."""
    for start in range(offset, len(content), chunk_bytes) or (offset,):
        yield Chunk(upload.id, start, content[start : start + chunk_bytes])
        await asyncio.sleep(0)


async def cut(chunks: AsyncIterator[Chunk], after: int) -> AsyncIterator[Chunk]:
    """The first chunks of a stream, then the connection breaks."""
    async for chunk in chunks:
        if not after:
            raise ConnectionError("the connection broke")
        after -= 1
        yield chunk
    raise ConnectionError("the connection broke at the end")


async def listed(chunks: Iterable[Chunk]) -> AsyncIterator[Chunk]:
    """These messages."""
    for chunk in chunks:
        yield chunk
