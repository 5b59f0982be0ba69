"""Which uploads there are and how far each is, in SQL: any replica can continue what another one began."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Row, delete, insert, literal, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database, now_us
from modelyard.core.errors import Conflict, NotFound, WrongState

from .tables import blobs, datasets, loose_objects, model_versions, upload_parts, uploads
from .upserts import insert_if_absent

_ASSEMBLY_US = 6 * 3600 * 1_000_000
"""Storing a blob may take so long."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Complete, verified content."""

    digest: str
    size_bytes: int
    create_time: int
    key: str
    """The object in the store."""

    @property
    def etag(self) -> str:
        """Another one when the content has been removed and stored again."""
        return _etag(self.key)


@dataclass(frozen=True, slots=True)
class Upload:
    """Content on its way."""

    id: str
    digest: str
    size_bytes: int
    committed_bytes: int
    complete: bool
    expire_time: int

    @property
    def name(self) -> str:
        """The resource name."""
        return f"uploads/{self.id}"

    @property
    def has_all_bytes(self) -> bool:
        """Whether nothing is left to send."""
        return self.committed_bytes == self.size_bytes


_COLUMNS = (
    uploads.c.id, uploads.c.digest, uploads.c.size_bytes, uploads.c.committed_bytes, uploads.c.complete,
    uploads.c.expire_time,
)  # fmt: skip


class UploadLedger:
    """Uploads, their parts, and the blobs they become."""

    def __init__(self, database: Database, *, expiry_s: float) -> None:
        self._database = database
        self._expiry_us = round(expiry_s * 1e6)

    async def blob(self, digest: str) -> Blob | None:
        """The blob, if it is complete."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(blobs).where(blobs.c.digest == digest))).one_or_none()
        return None if row is None else Blob(row.digest, row.size_bytes, row.create_time, row.key)

    async def start(self, tenant: str, digest: str, size_bytes: int) -> Upload:
        """The tenant's upload of this content: the one that exists, or a new one. Complete if the blob is there."""
        mine = (uploads.c.tenant == tenant) & (uploads.c.digest == digest) & (uploads.c.size_bytes == size_bytes)
        new = {
            "id": secrets.token_hex(16), "tenant": tenant, "digest": digest, "size_bytes": size_bytes,
            "committed_bytes": 0, "complete": False, "expire_time": now_us() + self._expiry_us,
        }  # fmt: skip
        async with self._database.write() as connection:
            await hold_blob(connection, digest)
            await connection.execute(insert_if_absent(self._database, uploads, new))
            # Somebody else may have sent the same content meanwhile. The parts of this one are swept then.
            there = select(blobs.c.digest).where(blobs.c.digest == digest, blobs.c.size_bytes == size_bytes).exists()
            await connection.execute(
                update(uploads).where(mine, there).values(complete=True, committed_bytes=size_bytes)
            )  # fmt: skip
            row = (await connection.execute(select(*_COLUMNS).where(mine))).one_or_none()
        # What was there may have been discarded while this transaction ran.
        return _to_upload(row) if row is not None else await self.start(tenant, digest, size_bytes)

    async def get(self, upload_id: str, tenant: str) -> Upload:
        """The upload; raises NotFound if the tenant has none of this id (any more)."""
        query = select(*_COLUMNS).where(uploads.c.id == upload_id, uploads.c.tenant == tenant)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NotFound.resource(f"uploads/{upload_id}")
        return _to_upload(row)

    async def append(self, upload: Upload, part_bytes: int, key: str) -> Upload | None:
        """Records a part that begins at `upload.committed_bytes`; None if somebody else came first."""
        first = upload.committed_bytes
        unchanged = (
            (uploads.c.id == upload.id) & (uploads.c.committed_bytes == first) & uploads.c.complete.is_(False)
        )  # fmt: skip
        advanced = {"committed_bytes": first + part_bytes, "expire_time": now_us() + self._expiry_us}
        async with self._database.write() as connection:
            row = await _changed(connection, unchanged, advanced)
            if row is None:
                return None
            part = {"upload_id": upload.id, "first_byte": first, "size_bytes": part_bytes, "key": key}
            await connection.execute(insert(upload_parts).values(part))
        return _to_upload(row)

    async def part_keys(self, upload: Upload) -> list[str] | None:
        """Keys of the stored parts, in the order of the content; None if they have become the blob meanwhile."""
        query = select(upload_parts.c.key).where(upload_parts.c.upload_id == upload.id)
        unfinished = select(uploads.c.id).where(uploads.c.id == upload.id, uploads.c.complete.is_(False))
        async with self._database.read() as connection:
            keys = list((await connection.execute(query.order_by(upload_parts.c.first_byte))).scalars())
            # Asked after the keys: they go in the same transaction in which the upload becomes complete.
            return keys if (await connection.execute(unfinished)).one_or_none() is not None else None

    async def expect_object(self, key: str) -> None:
        """Notes an object that is about to be written: it goes if it has not become a blob's in time."""
        async with self._database.write() as connection:
            new = insert(loose_objects).values(key=key, delete_time=now_us() + _ASSEMBLY_US)
            await connection.execute(new)

    async def complete(self, upload: Upload, key: str) -> bool:
        """The content is stored and verified under `key`: the blob is visible from here on, the parts are not needed.

        False if that took so long that the object may be gone. If somebody else was faster, theirs is the blob.
        """
        blob = {"digest": upload.digest, "size_bytes": upload.size_bytes, "create_time": now_us(), "key": key}
        mine = (loose_objects.c.key == key) & (loose_objects.c.delete_time > now_us())
        async with self._database.write() as connection:
            if not (await connection.execute(update(loose_objects).where(mine).values(delete_time=now_us()))).rowcount:
                return False
            new = insert_if_absent(self._database, blobs, blob).returning(blobs.c.digest)
            if (await connection.execute(new)).one_or_none() is not None:
                await connection.execute(delete(loose_objects).where(loose_objects.c.key == key))
            await connection.execute(update(uploads).where(uploads.c.id == upload.id).values(complete=True))
            await connection.execute(delete(upload_parts).where(upload_parts.c.upload_id == upload.id))
        return True

    async def delete_blob(self, digest: str, etag: str = "") -> str | None:
        """Forgets a blob and answers the key of its object, which is loose now; None if there was none.

        Raises WrongState if a version or a dataset refers to it, Conflict if an etag is given and not the blob's.
        """
        there = select(blobs.c.key).where(blobs.c.digest == digest).with_for_update()
        finished = (uploads.c.digest == digest) & uploads.c.complete.is_(True)
        async with self._database.write() as connection:
            key: str | None = (await connection.execute(there)).scalar_one_or_none()
            if key is None:
                return None
            if etag and etag != _etag(key):
                raise Conflict(f"the blob {digest} was removed and stored again", metadata={"etag": _etag(key)})
            # Nobody gets a new reference any more: making one holds the row, see `hold_blob`.
            if (await connection.execute(_references(digest))).first() is not None:
                raise WrongState(f"the blob {digest} belongs to a version or a dataset")
            await connection.execute(delete(uploads).where(finished))
            await connection.execute(delete(blobs).where(blobs.c.digest == digest))
            await connection.execute(insert(loose_objects).values(key=key, delete_time=now_us()))
        return key

    async def loose_objects(self) -> list[str]:
        """Keys of objects whose time is over."""
        over = select(loose_objects.c.key).where(loose_objects.c.delete_time <= now_us())
        async with self._database.read() as connection:
            return list((await connection.execute(over)).scalars())

    async def forget_object(self, key: str) -> None:
        """A loose object has been removed."""
        async with self._database.write() as connection:
            await connection.execute(delete(loose_objects).where(loose_objects.c.key == key))

    async def discard(self, upload_id: str) -> None:
        """Forgets the upload and its parts, unless it has become complete."""
        unfinished = (uploads.c.id == upload_id) & uploads.c.complete.is_(False)
        async with self._database.write() as connection:
            await connection.execute(delete(uploads).where(unfinished))

    async def discard_expired(self) -> int:
        """Forgets uploads whose time is over; how many. Their parts are orphans then."""
        async with self._database.write() as connection:
            return (await connection.execute(delete(uploads).where(uploads.c.expire_time < now_us()))).rowcount

    async def unknown_keys(self, keys: list[str]) -> list[str]:
        """Those of `keys` that belong to no upload."""
        query = select(upload_parts.c.key).where(upload_parts.c.key.in_(keys))
        async with self._database.read() as connection:
            known = set((await connection.execute(query)).scalars())
        return [key for key in keys if key not in known]


async def hold_blob(connection: AsyncConnection, digest: str) -> bool:
    """Whether the blob is there; then it stays until the transaction ends (SQLite has one writer at a time anyway)."""
    row = select(blobs.c.digest).where(blobs.c.digest == digest).with_for_update(read=True, key_share=True)
    return (await connection.execute(row)).one_or_none() is not None


def _etag(key: str) -> str:
    """Of the blob in this object: no two blobs of the same content are the same object, see `blob_store.blob_key`."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _references(digest: str) -> CompoundSelect[int]:
    """A row for each kind of thing that refers to the blob."""
    one = literal(1)
    return union_all(
        select(one).where(select(datasets.c.id).where(datasets.c.digest == digest).exists()),
        select(one).where(select(model_versions.c.version).where(model_versions.c.digest == digest).exists()),
        select(one).where(select(model_versions.c.version).where(model_versions.c.external_digest == digest).exists()),
    )


def _to_upload(row: Any) -> Upload:
    return Upload(row.id, row.digest, row.size_bytes, row.committed_bytes, row.complete, row.expire_time)


async def _changed(connection: Any, condition: ColumnElement[bool], values: dict[str, Any]) -> Row[Any] | None:
    statement = update(uploads).where(condition).values(values).returning(*_COLUMNS)
    row: Row[Any] | None = (await connection.execute(statement)).one_or_none()
    return row
