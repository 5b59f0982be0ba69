"""What should be served, as of a revision: every version that an alias points, or sends callers, to.

Read from SQL piece by piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database

from .revisions import current_revision
from .serving import Serving
from .tables import model_aliases, model_versions, models
from .traffic import Traffic
from .versions import Version, to_version


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What should be served of one model."""

    model_id: str
    revision: int
    """When that changed last."""
    aliases: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[int, Version] = field(default_factory=dict)
    """By number."""
    serving: Serving = field(default_factory=Serving)
    traffic: Mapping[str, Traffic] = field(default_factory=dict)
    """By alias, of those that have any."""


@dataclass(frozen=True, slots=True)
class Served:
    """What should be served of all models, those included that no longer are."""

    revision: int
    models: Mapping[str, ServedModel] = field(default_factory=dict)

    def since(self, revision: int) -> list[ServedModel]:
        """What has changed after `revision`, in the order of the changes."""
        changed = [model for model in self.models.values() if model.revision > revision]
        return sorted(changed, key=lambda model: model.revision)

    def everything(self) -> list[ServedModel]:
        """The models that are served, by name."""
        return [model for _, model in sorted(self.models.items()) if model.aliases]


async def read_served(database: Database, known: Served | None = None) -> Served:
    """What should be served now; only what has changed since `known` is read.

    The revision is read before the models: a change that comes in between is in the answer already and will be
    reported once more, which does no harm. The other way round it would be lost.
    """
    async with database.read() as connection:
        revision = await current_revision(connection)
        if known is None or revision < known.revision:
            known = Served(0)  # nothing is known, or the database has been restored from a backup
        if revision == known.revision:
            return known
        changed = {
            row.id: ServedModel(row.id, row.served_revision, serving=Serving.from_row(row.serving))
            for row in await connection.execute(
                select(models.c.id, models.c.served_revision, models.c.serving).where(
                    models.c.served_revision > known.revision
                )
            )
        }
        # One statement for aliases and versions together: an alias never comes without its version.
        query = (
            select(model_aliases.c.alias, model_aliases.c.traffic, model_versions)
            .join_from(model_aliases, model_versions, (model_aliases.c.model_id == model_versions.c.model_id)
                       & (model_aliases.c.version == model_versions.c.version))
            .join(models, models.c.id == model_aliases.c.model_id)
            .where(models.c.served_revision > known.revision)
        )  # fmt: skip
        for row in await connection.execute(query):
            model = changed.get(row.model_id)
            if model is not None:
                version = to_version(row)
                changed[row.model_id] = replace(
                    model,
                    aliases={**model.aliases, row.alias: row.version},
                    versions={**model.versions, row.version: version},
                    traffic={**model.traffic, **({row.alias: Traffic.from_row(row.traffic)} if row.traffic else {})},
                )
        await _add_versions_of_traffic(connection, changed)
    return Served(revision, {**known.models, **changed})


async def _add_versions_of_traffic(connection: AsyncConnection, found: dict[str, ServedModel]) -> None:
    """Adds the versions that only traffic names."""
    wanted = [
        (model.model_id, version)
        for model in found.values()
        for traffic in model.traffic.values()
        for version in traffic.versions()
        if version not in model.versions
    ]
    query = select(model_versions).where(tuple_(model_versions.c.model_id, model_versions.c.version).in_(wanted))
    for row in (await connection.execute(query)) if wanted else ():
        model = found[row.model_id]
        found[row.model_id] = replace(model, versions={**model.versions, row.version: to_version(row)})
