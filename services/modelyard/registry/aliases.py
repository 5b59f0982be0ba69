"""Aliases: movable names for versions, with a history that only grows.

Every alias keeps a stack of the moves that can be undone. A move pushes itself; a rollback pops the last move and goes
back to the version before it. So rolling back again walks further into the past (5 → 4 → 3), never back and forth,
and a move after a rollback can itself be rolled back to where it came from. The stack's links are sequence numbers in
the history, so a rollback costs the same however long the history is. A deleted alias takes its stack with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database, now_us
from modelyard.core.errors import Conflict, NotFound, WrongState
from modelyard.core.tokens import Caller

from .models import lock_model
from .repetition import Repetition, Request
from .revisions import raise_revision
from .tables import model_alias_changes, model_aliases, model_versions, models
from .tenancy import visible_to


@dataclass(frozen=True, slots=True)
class Alias:
    """An alias as it is, or as a call left it."""

    model_id: str
    alias: str
    version: int
    sequence: int
    """The change that put it here; the etag."""
    update_time: int


class Aliases:
    """Moves and finds aliases."""

    def __init__(self, database: Database, repetition: Repetition, on_served: Callable[[], None]) -> None:
        """`on_served` is called after a commit that changed what is served."""
        self._database = database
        self._repetition = repetition
        self._on_served = on_served

    async def set(
        self,
        caller: Caller,
        model_id: str,
        alias: str,
        version: int,
        *,
        etag: str = "",
        reason: str = "",
        request_id: str = "",
    ) -> Alias:
        """Points the alias to a version; without effect if it points there already.

        Raises NotFound for model or version, Conflict if `etag` is given and not the alias's any more (an alias that
        does not exist has none), RequestIdReused.
        """
        request = Request.of(caller.tenant, request_id, "SetModelAlias", model_id, alias, version, etag, reason)

        async def work(connection: AsyncConnection) -> str:
            await lock_model(connection, caller, model_id)
            _check_etag(model_id, alias, await _current(connection, model_id, alias), etag)
            await _require_version(connection, model_id, version)
            return str(await move_alias(connection, model_id, alias, version, caller.subject, reason))

        return await self._answer(model_id, alias, request, work)

    async def rollback(
        self,
        caller: Caller,
        model_id: str,
        alias: str,
        *,
        etag: str = "",
        reason: str = "",
        request_id: str = "",
    ) -> Alias:
        """Undoes the alias's last move that has not been undone yet; see the module's text.

        Raises NotFound, WrongState if nothing is left to undo, Conflict for the etag, RequestIdReused.
        """
        request = Request.of(caller.tenant, request_id, "RollbackModelAlias", model_id, alias, etag, reason)

        async def work(connection: AsyncConnection) -> str:
            await lock_model(connection, caller, model_id)
            current = await _current(connection, model_id, alias)
            if current is None:
                raise _not_found(model_id, alias)
            _check_etag(model_id, alias, current, etag)
            return str(await _undo(connection, current, caller.subject, reason or "rollback"))

        return await self._answer(model_id, alias, request, work)

    async def delete(self, caller: Caller, model_id: str, alias: str, *, etag: str = "") -> None:
        """Removes the alias; raises NotFound, and Conflict for the etag."""
        async with self._database.write() as connection:
            await lock_model(connection, caller, model_id)
            current = await _current(connection, model_id, alias)
            if current is None:
                raise _not_found(model_id, alias)
            _check_etag(model_id, alias, current, etag)
            change = _Change(model_id, alias, current.version, 0, 0, caller.subject, "deleted")
            await _record(connection, change)
            await connection.execute(delete(model_aliases).where(_this(model_id, alias)))
        self._on_served()

    async def get(self, caller: Caller, model_id: str, alias: str) -> Alias:
        """One alias; raises NotFound."""
        query = (
            select(model_aliases).join(models, models.c.id == model_aliases.c.model_id)
            .where(_this(model_id, alias), visible_to(caller, models.c.tenant))
        )  # fmt: skip
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise _not_found(model_id, alias)
        return Alias(row.model_id, row.alias, row.version, row.sequence, row.update_time)

    async def _answer(
        self, model_id: str, alias: str, request: Request, work: Callable[[AsyncConnection], Awaitable[str]]
    ) -> Alias:
        """Does the work once; the alias as it was left by the change that the work names."""
        sequence, _now = await self._repetition.once(request, work)
        self._on_served()
        changed = (model_alias_changes.c.model_id == model_id) & (model_alias_changes.c.sequence == int(sequence))
        async with self._database.read() as connection:
            row = (await connection.execute(select(model_alias_changes).where(changed))).one()
        return Alias(model_id, alias, row.version, row.sequence, row.time)


async def move_alias(
    connection: AsyncConnection, model_id: str, alias: str, version: int, actor: str, reason: str
) -> int:
    """Points the alias of a locked model to a version that exists; the sequence of the change that put it there."""
    current = await _current(connection, model_id, alias)
    if current is None:
        sequence, time = await _record(connection, _Change(model_id, alias, 0, version, 0, actor, reason))
        row = {
            "model_id": model_id, "alias": alias, "version": version, "sequence": sequence, "undo_sequence": 0,
            "update_time": time,
        }  # fmt: skip
        await connection.execute(insert(model_aliases).values(row))
        return sequence
    if current.version == version:
        return int(current.sequence)
    change = _Change(model_id, alias, current.version, version, current.undo_sequence, actor, reason)
    sequence, time = await _record(connection, change)
    await _place(connection, change, sequence, time, undo_sequence=sequence)
    return sequence


@dataclass(frozen=True, slots=True)
class _Change:
    """An entry of the history that is about to be made."""

    model_id: str
    alias: str
    previous_version: int
    version: int
    undo_sequence: int
    """What a rollback would undo after this one has been undone."""
    actor: str
    reason: str


async def _undo(connection: AsyncConnection, current: Row[Any], actor: str, reason: str) -> int:
    """Pops the stack of the alias; raises WrongState if it is empty."""
    if not current.undo_sequence:
        raise WrongState(
            f"the alias {current.alias} has no earlier version to go back to", metadata={"state": "NO_EARLIER_VERSION"}
        )
    query = select(model_alias_changes).where(
        model_alias_changes.c.model_id == current.model_id, model_alias_changes.c.sequence == current.undo_sequence
    )
    undone = (await connection.execute(query)).one()
    change = _Change(current.model_id, current.alias, current.version, undone.previous_version, 0, actor, reason)
    sequence, time = await _record(connection, change)
    await _place(connection, change, sequence, time, undo_sequence=undone.undo_sequence)
    return sequence


async def _record(connection: AsyncConnection, change: _Change) -> tuple[int, int]:
    """Adds to the history and raises the revision; the change's sequence number and time."""
    counted = {
        "last_sequence": models.c.last_sequence + 1, "changes": models.c.changes + 1, "update_time": now_us(),
    }  # fmt: skip
    statement = update(models).where(models.c.id == change.model_id).values(counted)
    row = (await connection.execute(statement.returning(models.c.last_sequence, models.c.update_time))).one()
    entry = {**asdict(change), "sequence": row.last_sequence, "time": row.update_time}
    await connection.execute(insert(model_alias_changes).values(entry))
    await raise_revision(connection, change.model_id)
    return row.last_sequence, row.update_time


async def _place(connection: AsyncConnection, change: _Change, sequence: int, time: int, *, undo_sequence: int) -> None:
    """Points the alias to where the change says."""
    values = {
        "version": change.version, "sequence": sequence, "undo_sequence": undo_sequence, "update_time": time,
    }  # fmt: skip
    await connection.execute(update(model_aliases).where(_this(change.model_id, change.alias)).values(values))


async def _current(connection: AsyncConnection, model_id: str, alias: str) -> Row[Any] | None:
    row: Row[Any] | None = (
        await connection.execute(select(model_aliases).where(_this(model_id, alias)))
    ).one_or_none()  # fmt: skip
    return row


async def _require_version(connection: AsyncConnection, model_id: str, version: int) -> None:
    query = select(model_versions.c.version).where(
        model_versions.c.model_id == model_id, model_versions.c.version == version
    )
    if (await connection.execute(query)).one_or_none() is None:
        raise NotFound.resource(f"models/{model_id}/versions/{version}")


def _check_etag(model_id: str, alias: str, current: Row[Any] | None, etag: str) -> None:
    if etag and (current is None or etag != str(current.sequence)):
        raise Conflict(
            f"models/{model_id}/aliases/{alias} has moved since; read it again",
            metadata={"etag": "" if current is None else str(current.sequence)},
        )


def _this(model_id: str, alias: str) -> ColumnElement[bool]:
    return (model_aliases.c.model_id == model_id) & (model_aliases.c.alias == alias)


def _not_found(model_id: str, alias: str) -> NotFound:
    return NotFound.resource(f"models/{model_id}/aliases/{alias}")
