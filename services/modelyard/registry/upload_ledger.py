"""Which uploads there are and how far each is, in SQL: any replica can continue what another one began."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, select, update

from modelyard.core.database import Database, now_us
from modelyard.core.errors import NotFound

from .tables import blobs, upload_parts, uploads
from .upserts import insert_if_absent


@dataclass(frozen=True, slots=True)
class Blob:
    """Complete, verified content."""

    digest: str
    size_bytes: int
    create_time: int


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
        return None if row is None else Blob(row.digest, row.size_bytes, row.create_time)

    async def start(self, tenant: str, digest: str, size_bytes: int) -> Upload:
        """The tenant's upload of this content: the one that exists, or a new one. Complete if the blob is there."""
        mine = (uploads.c.tenant == tenant) & (uploads.c.digest == digest) & (uploads.c.size_bytes == size_bytes)
        new = {
            "id": secrets.token_hex(16), "tenant": tenant, "digest": digest, "size_bytes": size_bytes,
            "committed_bytes": 0, "complete": False, "expire_time": now_us() + self._expiry_us,
        }  # fmt: skip
        async with self._database.write() as connection:
            await connection.execute(insert_if_absent(self._database, uploads, new))
            # Somebody else may have sent the same content meanwhile. The parts of this one are swept then.
            there = select(blobs.c.digest).where(blobs.c.digest == digest, blobs.c.size_bytes == size_bytes).exists()
            await connection.execute(
                update(uploads).where(mine, there).values(complete=True, committed_bytes=size_bytes)
            )  # fmt: skip
            row = (await connection.execute(select(*_COLUMNS).where(mine))).one()
        return _to_upload(row)

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

    async def complete(self, upload: Upload) -> None:
        """The blob is stored and verified: it is visible from here on, and the parts are not needed any more."""
        blob = {"digest": upload.digest, "size_bytes": upload.size_bytes, "create_time": now_us()}
        async with self._database.write() as connection:
            await connection.execute(insert_if_absent(self._database, blobs, blob))
            await connection.execute(update(uploads).where(uploads.c.id == upload.id).values(complete=True))
            await connection.execute(delete(upload_parts).where(upload_parts.c.upload_id == upload.id))

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


def _to_upload(row: Any) -> Upload:
    return Upload(row.id, row.digest, row.size_bytes, row.committed_bytes, row.complete, row.expire_time)


async def _changed(connection: Any, condition: ColumnElement[bool], values: dict[str, Any]) -> Row[Any] | None:
    statement = update(uploads).where(condition).values(values).returning(*_COLUMNS)
    row: Row[Any] | None = (await connection.execute(statement)).one_or_none()
    return row
