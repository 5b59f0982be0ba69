"""Removes checkpoints that nobody wants any more from the artifact store.

A row is marked first, then the store is asked, then the row is deleted: whatever dies in between, the mark stays, and
it is due again a while later. Asking the store twice is harmless. Any number of replicas may do this at once. While
there is a mark nobody can announce the same content, so nobody relies on it; see `checkpoints`.

A process may sleep so long between its mark and its call that another one has gone on meanwhile, and a worker has
uploaded the content anew. So it says which blob it means, by the etag that the blob had before the mark. A mark is only
taken away when the store has no such content any more (or keeps it for a version), and what comes after that has
another etag: nobody who reads one before his mark can remove it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sqlalchemy import ColumnElement, delete, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database, now_us
from modelyard.core.errors import Conflict, Unavailable
from modelyard.core.logs import get_logger

from .checkpoints import is_wanted, lock_digest
from .tables import job_checkpoints as table

_TAKEN_US = 60_000_000
"""For so long a blob belongs to the process that is removing it. If that has died, another one goes on."""

log = get_logger()


class BlobStore(Protocol):
    """Where the blobs are."""

    async def find_blob(self, digest: str) -> str | None:
        """The blob's etag; None if there is none. Raises Unavailable."""

    async def delete_blob(self, digest: str, etag: str) -> bool:
        """Removes a blob; whether there was one that nothing else refers to. Raises Conflict if there is another one by
        now, Unavailable."""


class Removal:
    """Removes what is due."""

    def __init__(self, database: Database, store: BlobStore, *, on_removed: Callable[[], None] = lambda: None) -> None:
        """`on_removed` hears of each blob that was there and is gone."""
        self._database = database
        self._store = store
        self._on_removed = on_removed

    async def remove_due(self, limit: int = 100) -> bool:
        """Removes up to `limit` blobs; whether there may be more. Stops at the first one if the store is away."""
        due = await self._due(limit)
        try:
            for row_id, digest in due:
                await self._remove(row_id, digest)
        except Unavailable as error:
            log.warning("checkpoints stay for now", due=len(due), reason=error.message)
            return False
        return len(due) == limit

    async def _due(self, limit: int) -> list[tuple[int, str]]:
        query = (
            select(table.c.id, table.c.digest)
            .where(table.c.remove_time <= now_us())
            .order_by(table.c.remove_time)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [(row.id, row.digest) for row in await connection.execute(query)]

    async def _remove(self, row_id: int, digest: str) -> None:
        etag = await self._store.find_blob(digest)  # before the mark
        async with self._database.write() as connection:
            await lock_digest(connection, digest)
            if not await _take(connection, row_id, digest):
                return
        try:
            existed = await self._delete(digest, etag)
        except Conflict:
            log.info("a checkpoint has come back; it is removed later", digest=digest)
            return
        async with self._database.write() as connection:
            await connection.execute(delete(table).where(table.c.digest == digest, table.c.removing))
        if existed:
            self._on_removed()

    async def _delete(self, digest: str, etag: str | None) -> bool:
        """Whether there was a blob; there is none now. Raises Conflict if one came after `etag` was read."""
        if etag is not None:
            return await self._store.delete_blob(digest, etag)
        if await self._store.find_blob(digest) is not None:
            raise Conflict("uploaded just now")
        return False


async def _take(connection: AsyncConnection, row_id: int, digest: str) -> bool:
    """Marks the blob as being removed; not if another row still wants it, which only leaves this row to delete."""
    is_due: ColumnElement[bool] = (table.c.id == row_id) & (table.c.remove_time <= now_us())
    wanted_elsewhere = exists().where(table.c.digest == digest, is_wanted(now_us()))
    if (await connection.execute(select(wanted_elsewhere))).scalar_one():
        await connection.execute(delete(table).where(is_due))
        return False
    taken = update(table).where(is_due).values(removing=True, remove_time=now_us() + _TAKEN_US)
    return bool((await connection.execute(taken)).rowcount)
