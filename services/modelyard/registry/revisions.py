"""The one counter of what should be served. Raised in the transaction of each change, so it says how far one is."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .tables import models, revision


async def raise_revision(connection: AsyncConnection, model_id: str) -> None:
    """What is served of this model has changed. The row's lock makes revisions become visible in their order."""
    raised = update(revision).values(value=revision.c.value + 1).returning(revision.c.value)
    value = (await connection.execute(raised)).scalar_one()
    await connection.execute(update(models).where(models.c.id == model_id).values(served_revision=value))


async def current_revision(connection: AsyncConnection) -> int:
    """The counter as it stands."""
    return int((await connection.execute(select(revision.c.value))).scalar_one())
