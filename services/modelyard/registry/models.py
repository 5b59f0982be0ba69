"""Models: named series of versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database, now_us
from modelyard.core.errors import AlreadyExists, Conflict, NotFound
from modelyard.core.paging import decode_token, encode_token
from modelyard.core.tokens import Caller

from .repetition import Repetition, Request
from .revisions import raise_revision
from .serving import Serving
from .tables import model_aliases, models
from .tenancy import owns, visible_to
from .upserts import insert_if_absent


@dataclass(frozen=True, slots=True)
class NewModel:
    """What a caller says of a model; its form is checked."""

    id: str
    display_name: str = ""
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    serving: Serving = field(default_factory=Serving)


@dataclass(frozen=True, slots=True)
class ModelUpdate:
    """What a caller wants changed of a model; its form is checked."""

    fields: Mapping[str, Any]
    """New values of `display_name`, `description`, `labels`."""
    serving: Mapping[str, int]
    """New values of single settings."""
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """A model as it is."""

    id: str
    tenant: str
    display_name: str
    description: str
    labels: Mapping[str, str]
    latest_version: int
    """0 if there is none."""
    aliases: Mapping[str, int]
    serving: Serving
    changes: int
    """Counts every change; the etag."""
    create_time: int
    update_time: int


class Models:
    """Creates and finds models."""

    def __init__(self, database: Database, repetition: Repetition, on_served: Callable[[], None]) -> None:
        """`on_served` is called after a commit that changed what is served."""
        self._database = database
        self._repetition = repetition
        self._on_served = on_served

    async def create(self, caller: Caller, new: NewModel, request_id: str = "") -> Model:
        """The new model, or the one that is there with the same content; raises AlreadyExists for another."""
        request = Request.of(caller.tenant, request_id, "CreateModel", asdict(new))
        await self._repetition.once(request, partial(self._create, caller, new))
        return await self.get(caller, new.id)

    async def _create(self, caller: Caller, new: NewModel, connection: AsyncConnection) -> str:
        row = await ensure_model(self._database, connection, caller, new)
        there = NewModel(row.id, row.display_name, row.description, row.labels, Serving.from_row(row.serving))
        if there != new:
            raise AlreadyExists(
                f"models/{new.id} exists with other content", metadata={"resource": f"models/{new.id}"}
            )  # fmt: skip
        return new.id

    async def update(self, caller: Caller, model_id: str, wanted: ModelUpdate, request_id: str = "") -> Model:
        """The changed model. Without effect if it is so already.

        Raises NotFound, Conflict if `etag` is given and not the model's any more, RequestIdReused.
        """
        request = Request.of(caller.tenant, request_id, "UpdateModel", model_id, asdict(wanted))
        _id, now = await self._repetition.once(request, partial(self._update, caller, model_id, wanted))
        if now and wanted.serving:
            self._on_served()
        return await self.get(caller, model_id)

    async def _update(self, caller: Caller, model_id: str, wanted: ModelUpdate, connection: AsyncConnection) -> str:
        row = await lock_model(connection, caller, model_id)
        if wanted.etag and wanted.etag != str(row.changes):
            raise Conflict(f"models/{model_id} has changed since; read it again", metadata={"etag": str(row.changes)})
        serving = replace(Serving.from_row(row.serving), **wanted.serving).to_row()
        values = {**wanted.fields, "serving": serving}
        if all(getattr(row, name) == value for name, value in values.items()):
            return model_id
        counted = {"changes": models.c.changes + 1, "update_time": now_us()}
        await connection.execute(update(models).where(models.c.id == model_id).values({**values, **counted}))
        if serving != row.serving:
            await raise_revision(connection, model_id)
        return model_id

    async def get(self, caller: Caller, model_id: str) -> Model:
        """One model; raises NotFound."""
        query = select(models).where(models.c.id == model_id, visible_to(caller, models.c.tenant))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                raise NotFound.resource(f"models/{model_id}")
            aliases = await _aliases_of(connection, [model_id])
        return _to_model(row, aliases)

    async def list(self, caller: Caller, page_size: int, page_token: str) -> tuple[list[Model], str]:
        """A page of the models that the caller may see, by name, and the token of the next."""
        query = select(models).where(visible_to(caller, models.c.tenant)).order_by(models.c.id).limit(page_size + 1)
        position = decode_token(page_token, str)
        if position is not None:
            query = query.where(models.c.id > position[0])
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
            aliases = await _aliases_of(connection, [row.id for row in rows])
        page = [_to_model(row, aliases) for row in rows[:page_size]]
        return page, encode_token(page[-1].id) if len(rows) > page_size else ""


async def ensure_model(database: Database, connection: AsyncConnection, caller: Caller, new: NewModel) -> Row[Any]:
    """The model's row, locked, made if it is missing; raises AlreadyExists if it is another tenant's."""
    row = {
        **asdict(new), "serving": new.serving.to_row(), "tenant": caller.tenant, "latest_version": 0,
        "last_sequence": 0, "changes": 1, "create_time": now_us(), "update_time": now_us(),
    }  # fmt: skip
    await connection.execute(insert_if_absent(database, models, row))
    there = (await connection.execute(select(models).where(models.c.id == new.id).with_for_update())).one()
    if not owns(caller, there.tenant):
        raise AlreadyExists(f"models/{new.id} is taken", metadata={"resource": f"models/{new.id}"})
    return there


async def lock_model(connection: AsyncConnection, caller: Caller, model_id: str) -> Row[Any]:
    """The model's row, locked for the transaction; raises NotFound."""
    query = select(models).where(models.c.id == model_id, visible_to(caller, models.c.tenant)).with_for_update()
    row: Row[Any] | None = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound.resource(f"models/{model_id}")
    return row


async def require_model(connection: AsyncConnection, caller: Caller, model_id: str) -> None:
    """Raises NotFound unless the caller may see the model."""
    query = select(models.c.id).where(models.c.id == model_id, visible_to(caller, models.c.tenant))
    if (await connection.execute(query)).one_or_none() is None:
        raise NotFound.resource(f"models/{model_id}")


async def _aliases_of(connection: AsyncConnection, model_ids: list[str]) -> dict[str, dict[str, int]]:
    query = select(model_aliases).where(model_aliases.c.model_id.in_(model_ids)).order_by(model_aliases.c.alias)
    found: dict[str, dict[str, int]] = {model_id: {} for model_id in model_ids}
    for row in await connection.execute(query):
        found[row.model_id][row.alias] = row.version
    return found


def _to_model(row: Row[Any], aliases: Mapping[str, Mapping[str, int]]) -> Model:
    return Model(
        id=row.id,
        tenant=row.tenant,
        display_name=row.display_name,
        description=row.description,
        labels=row.labels,
        latest_version=row.latest_version,
        aliases=aliases[row.id],
        serving=Serving.from_row(row.serving),
        changes=row.changes,
        create_time=row.create_time,
        update_time=row.update_time,
    )
