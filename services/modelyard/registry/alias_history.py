"""Every move of a model's aliases, for reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select

from modelyard.core.database import Database
from modelyard.core.paging import decode_token, encode_token
from modelyard.core.tokens import Caller

from .models import require_model
from .tables import model_alias_changes
from .traffic import Traffic


@dataclass(frozen=True, slots=True)
class AliasChange:
    """One move."""

    sequence: int
    alias: str
    previous_version: int
    """0 if the alias was new."""
    version: int
    """0 if it was deleted."""
    time: int
    actor: str
    reason: str
    previous_traffic: Traffic
    traffic: Traffic


_COLUMNS = (
    model_alias_changes.c.sequence, model_alias_changes.c.alias, model_alias_changes.c.previous_version,
    model_alias_changes.c.version, model_alias_changes.c.time, model_alias_changes.c.actor,
    model_alias_changes.c.reason, model_alias_changes.c.previous_traffic, model_alias_changes.c.traffic,
)  # fmt: skip


async def list_alias_changes(
    database: Database, caller: Caller, model_id: str, alias: str, page_size: int, page_token: str
) -> tuple[list[AliasChange], str]:
    """A page of the history, newest first, and the token of the next; raises NotFound. `alias` empty: of all."""
    query = select(*_COLUMNS).where(model_alias_changes.c.model_id == model_id)
    if alias:
        query = query.where(model_alias_changes.c.alias == alias)
    position = decode_token(page_token, int)
    if position is not None:
        query = query.where(model_alias_changes.c.sequence < position[0])
    query = query.order_by(model_alias_changes.c.sequence.desc()).limit(page_size + 1)
    async with database.read() as connection:
        await require_model(connection, caller, model_id)
        rows = (await connection.execute(query)).all()
    page = [_to_change(row) for row in rows[:page_size]]
    return page, encode_token(page[-1].sequence) if len(rows) > page_size else ""


def _to_change(row: Row[*tuple[Any, ...]]) -> AliasChange:
    plain = {name: value for name, value in row._asdict().items() if not name.endswith("traffic")}
    return AliasChange(
        **plain, previous_traffic=Traffic.from_row(row.previous_traffic), traffic=Traffic.from_row(row.traffic)
    )
