"""Calls that may be repeated: the same `request_id` with the same content is done once and answered alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database, now_us
from modelyard.core.errors import RequestIdReused

from .tables import requests
from .upserts import insert_if_absent


@dataclass(frozen=True, slots=True)
class Request:
    """What identifies a call of one tenant."""

    tenant: str
    request_id: str
    """Empty if the caller gave none: then the call is done every time."""
    fingerprint: str
    """SHA-256 of its method and content."""

    @classmethod
    def of(cls, tenant: str, request_id: str, method: str, *content: Any) -> Request:
        """`content` is JSON data, or bytes."""
        text = json.dumps([method, *content], sort_keys=True, default=bytes.hex)
        return cls(tenant, request_id, hashlib.sha256(text.encode()).hexdigest())


class Repetition:
    """Remembers what each request made."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def result_of(self, request: Request) -> str | None:
        """What an earlier call with this id made; None if there was none. Raises RequestIdReused."""
        if not request.request_id:
            return None
        async with self._database.read() as connection:
            return await _earlier(connection, request)

    async def once(self, request: Request, work: Callable[[AsyncConnection], Awaitable[str]]) -> tuple[str, bool]:
        """What `work` answers, and whether it was done now: in one transaction with the memory of it.

        Of two calls at the same time the second waits for the first and then gets its result. Raises RequestIdReused.
        """
        async with self._database.write() as connection:
            if request.request_id and not await self._reserve(connection, request):
                earlier = await _earlier(connection, request)
                if earlier is not None:
                    return earlier, False
            result = await work(connection)
            if request.request_id:
                mine = (requests.c.tenant == request.tenant) & (requests.c.request_id == request.request_id)
                await connection.execute(update(requests).where(mine).values(result=result))
            return result, True

    async def _reserve(self, connection: AsyncConnection, request: Request) -> bool:
        """Whether the id was free. On PostgreSQL this waits for a transaction that has just taken it."""
        row = {
            "tenant": request.tenant, "request_id": request.request_id, "fingerprint": request.fingerprint,
            "result": "", "create_time": now_us(),
        }  # fmt: skip
        statement = insert_if_absent(self._database, requests, row).returning(requests.c.request_id)
        return (await connection.execute(statement)).one_or_none() is not None


async def _earlier(connection: AsyncConnection, request: Request) -> str | None:
    mine = (requests.c.tenant == request.tenant) & (requests.c.request_id == request.request_id)
    row = (await connection.execute(select(requests.c.fingerprint, requests.c.result).where(mine))).one_or_none()
    if row is None:
        return None
    if row.fingerprint != request.fingerprint:
        raise RequestIdReused(
            f"the request_id {request.request_id} belongs to a request with other content",
            metadata={"request_id": request.request_id},
        )
    return str(row.result)
