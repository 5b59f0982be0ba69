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
from .traffic import Traffic

NO_TRAFFIC = Traffic()
"""Every caller is answered by the alias's own version."""


@dataclass(frozen=True, slots=True)
class Alias:
    """An alias as it is, or as a call left it."""

    model_id: str
    alias: str
    version: int
    sequence: int
    """The change that put it here; the etag."""
    update_time: int
    traffic: Traffic


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
        traffic: Traffic | None = None,
        etag: str = "",
        reason: str = "",
        request_id: str = "",
    ) -> Alias:
        """Points the alias to a version, and a share of its callers to others; without effect if it is so already.

        Raises NotFound for model or a version, Conflict if `etag` is given and not the alias's any more (an alias that
        does not exist has none), RequestIdReused.
        """
        traffic = traffic or NO_TRAFFIC
        content = (model_id, alias, version, etag, reason, *([traffic.to_row()] if traffic != NO_TRAFFIC else []))
        request = Request.of(caller.tenant, request_id, "SetModelAlias", *content)

        async def work(connection: AsyncConnection) -> str:
            await lock_model(connection, caller, model_id)
            check_etag(model_id, alias, await current_alias(connection, model_id, alias), etag)
            for number in (version, *traffic.versions()):
                await require_version(connection, model_id, number)
            return str(await move_alias(connection, model_id, alias, version, caller.subject, reason, traffic))

        return await self._answer(model_id, request, work)

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
            current = await current_alias(connection, model_id, alias)
            if current is None:
                raise alias_not_found(model_id, alias)
            check_etag(model_id, alias, current, etag)
            return str(await undo_move(connection, current, caller.subject, reason or "rollback"))

        return await self._answer(model_id, request, work)

    async def delete(self, caller: Caller, model_id: str, alias: str, *, etag: str = "") -> None:
        """Removes the alias; raises NotFound, and Conflict for the etag."""
        async with self._database.write() as connection:
            await lock_model(connection, caller, model_id)
            current = await current_alias(connection, model_id, alias)
            if current is None:
                raise alias_not_found(model_id, alias)
            check_etag(model_id, alias, current, etag)
            await remove_alias(connection, current, caller.subject, "deleted")
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
            raise alias_not_found(model_id, alias)
        return Alias(row.model_id, row.alias, row.version, row.sequence, row.update_time, Traffic.from_row(row.traffic))

    def tell_served(self) -> None:
        """What is served has changed otherwise, by a commit of one who knows aliases."""
        self._on_served()

    async def _answer(
        self, model_id: str, request: Request, work: Callable[[AsyncConnection], Awaitable[str]]
    ) -> Alias:
        """Does the work once; the alias as it was left by the change that the work names."""
        sequence, _now = await self._repetition.once(request, work)
        self._on_served()
        async with self._database.read() as connection:
            return await alias_after(connection, model_id, int(sequence))


async def alias_after(connection: AsyncConnection, model_id: str, sequence: int) -> Alias:
    """The alias as a change left it."""
    changed = (model_alias_changes.c.model_id == model_id) & (model_alias_changes.c.sequence == sequence)
    row = (await connection.execute(select(model_alias_changes).where(changed))).one()
    return Alias(model_id, row.alias, row.version, row.sequence, row.time, Traffic.from_row(row.traffic))


async def move_alias(
    connection: AsyncConnection,
    model_id: str,
    alias: str,
    version: int,
    actor: str,
    reason: str,
    traffic: Traffic = NO_TRAFFIC,
) -> int:
    """Points the alias of a locked model to a version that exists, and its traffic likewise.

    Answers the sequence of the change that put it there.
    """
    current = await current_alias(connection, model_id, alias)
    target = traffic.to_row()
    if current is None:
        change = _Change(model_id, alias, 0, {}, version, target, 0, actor, reason)
        sequence, time = await _record(connection, change)
        row = {
            "model_id": model_id, "alias": alias, "version": version, "traffic": target, "sequence": sequence,
            "undo_sequence": 0, "update_time": time,
        }  # fmt: skip
        await connection.execute(insert(model_aliases).values(row))
        return sequence
    if (current.version, current.traffic) == (version, target):
        return int(current.sequence)
    change = _Change(
        model_id, alias, current.version, current.traffic, version, target, current.undo_sequence, actor, reason
    )
    sequence, time = await _record(connection, change)
    await _place(connection, change, sequence, time, undo_sequence=sequence)
    return sequence


@dataclass(frozen=True, slots=True)
class _Change:
    """An entry of the history that is about to be made."""

    model_id: str
    alias: str
    previous_version: int
    previous_traffic: dict[str, Any]
    version: int
    traffic: dict[str, Any]
    undo_sequence: int
    """What a rollback would undo after this one has been undone."""
    actor: str
    reason: str


async def remove_alias(connection: AsyncConnection, current: Row[Any], actor: str, reason: str) -> None:
    """Deletes the alias of a locked model, with an entry in the history."""
    change = _Change(
        current.model_id, current.alias, current.version, current.traffic, 0, {}, 0, actor, reason
    )  # fmt: skip
    await _record(connection, change)
    await connection.execute(delete(model_aliases).where(_this(current.model_id, current.alias)))


async def undo_move(connection: AsyncConnection, current: Row[Any], actor: str, reason: str) -> int:
    """Pops the stack of the alias of a locked model; raises WrongState if it is empty."""
    if not current.undo_sequence:
        raise WrongState(
            f"the alias {current.alias} has no earlier version to go back to", metadata={"state": "NO_EARLIER_VERSION"}
        )
    query = select(model_alias_changes).where(
        model_alias_changes.c.model_id == current.model_id, model_alias_changes.c.sequence == current.undo_sequence
    )
    undone = (await connection.execute(query)).one()
    change = _Change(
        current.model_id, current.alias, current.version, current.traffic,
        undone.previous_version, undone.previous_traffic, 0, actor, reason,
    )  # fmt: skip
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
        "version": change.version, "traffic": change.traffic, "sequence": sequence, "undo_sequence": undo_sequence,
        "update_time": time,
    }  # fmt: skip
    await connection.execute(update(model_aliases).where(_this(change.model_id, change.alias)).values(values))


async def current_alias(connection: AsyncConnection, model_id: str, alias: str) -> Row[Any] | None:
    """Its row, if it exists."""
    row: Row[Any] | None = (
        await connection.execute(select(model_aliases).where(_this(model_id, alias)))
    ).one_or_none()  # fmt: skip
    return row


async def require_version(connection: AsyncConnection, model_id: str, version: int) -> None:
    """Raises NotFound unless the model has it."""
    query = select(model_versions.c.version).where(
        model_versions.c.model_id == model_id, model_versions.c.version == version
    )
    if (await connection.execute(query)).one_or_none() is None:
        raise NotFound.resource(f"models/{model_id}/versions/{version}")


def check_etag(model_id: str, alias: str, current: Row[Any] | None, etag: str) -> None:
    """Raises Conflict if an etag is given and not the alias's any more."""
    if etag and (current is None or etag != str(current.sequence)):
        raise Conflict(
            f"models/{model_id}/aliases/{alias} has moved since; read it again",
            metadata={"etag": "" if current is None else str(current.sequence)},
        )


def _this(model_id: str, alias: str) -> ColumnElement[bool]:
    return (model_aliases.c.model_id == model_id) & (model_aliases.c.alias == alias)


def alias_not_found(model_id: str, alias: str) -> NotFound:
    """For whoever asks for it."""
    return NotFound.resource(f"models/{model_id}/aliases/{alias}")
