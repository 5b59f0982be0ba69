"""What shadow versions did, as the pods tell it: each pod's own totals are kept, and added up when somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database, now_us
from modelyard.core.errors import NotFound
from modelyard.core.tokens import Caller

from .aliases import alias_not_found, current_alias
from .models import require_model
from .tables import shadow_counts
from .traffic import Traffic
from .upserts import insert_or_replace


@dataclass(frozen=True, slots=True)
class ShadowCounts:
    """Totals; see modelyard.v1.ShadowReport."""

    compared: int = 0
    differing: int = 0
    rows: int = 0
    class_mismatches: int = 0
    max_absolute_difference: float = 0.0
    max_relative_difference: float = 0.0
    failed: int = 0
    dropped: int = 0
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class ShadowTotals:
    """Totals of a pair of versions under an alias."""

    model_id: str
    alias: str
    version: int
    shadow_version: int
    counts: ShadowCounts = field(default_factory=ShadowCounts)
    update_time: int = 0
    """0 if no pod has told anything."""


async def record_shadows(
    database: Database, connection: AsyncConnection, pod_id: str, totals: Sequence[ShadowTotals]
) -> None:
    """Takes over what a pod has counted since it started."""
    for pair in totals:
        row = {
            "model_id": pair.model_id, "alias": pair.alias, "version": pair.version,
            "shadow_version": pair.shadow_version, "pod_id": pod_id, **asdict(pair.counts), "update_time": now_us(),
        }  # fmt: skip
        await connection.execute(insert_or_replace(database, shadow_counts, row))


async def read_shadow_report(database: Database, caller: Caller, model_id: str, alias: str) -> ShadowTotals:
    """The totals of the alias's versions over all pods; raises NotFound without alias or shadow."""
    async with database.read() as connection:
        await require_model(connection, caller, model_id)
        row = await current_alias(connection, model_id, alias)
        if row is None:
            raise alias_not_found(model_id, alias)
        shadow = Traffic.from_row(row.traffic).shadow
        if shadow is None:
            raise NotFound(f"models/{model_id}/aliases/{alias} has no shadow", metadata={"resource": "shadow"})
        return await _sum(connection, ShadowTotals(model_id, alias, row.version, shadow.version))


async def _sum(connection: AsyncConnection, pair: ShadowTotals) -> ShadowTotals:
    columns = shadow_counts.c
    mine = (
        (columns.model_id == pair.model_id) & (columns.alias == pair.alias)
        & (columns.version == pair.version) & (columns.shadow_version == pair.shadow_version)
    )  # fmt: skip
    summed = [columns.compared, columns.differing, columns.rows, columns.class_mismatches]
    query = select(
        *(func.coalesce(func.sum(column), 0) for column in summed),
        func.coalesce(func.max(columns.max_absolute_difference), 0.0),
        func.coalesce(func.max(columns.max_relative_difference), 0.0),
        func.coalesce(func.sum(columns.failed), 0),
        func.coalesce(func.sum(columns.dropped), 0),
        func.coalesce(func.max(columns.update_time), 0),
    ).where(mine)
    *totals, update_time = (await connection.execute(query)).one()
    newest = select(columns.last_error).where(mine, columns.last_error != "").order_by(columns.update_time.desc())
    last_error = (await connection.execute(newest.limit(1))).scalar_one_or_none() or ""
    # A sum of big integers is a decimal on PostgreSQL.
    kinds = (int, int, int, int, float, float, int, int)
    names = [name for name in asdict(pair.counts) if name != "last_error"]
    numbers = {name: kind(value) for name, kind, value in zip(names, kinds, totals, strict=True)}
    counts = replace(pair.counts, **numbers, last_error=last_error)
    return replace(pair, counts=counts, update_time=int(update_time))
