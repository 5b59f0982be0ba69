"""Which pods there are and what each serves, as they tell it themselves: a lease by the database's clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database, now_us
from modelyard.core.paging import decode_token, encode_token
from modelyard.core.tokens import Caller

from .promotion_outcomes import BrokenVersion, settle_broken
from .shadow_counts import ShadowTotals, record_shadows
from .tables import models, pod_versions, pods
from .tenancy import visible_to
from .upserts import insert_or_replace


@dataclass(frozen=True, slots=True)
class PodVersion:
    """A version in a pod."""

    model_id: str
    version: int
    state: int
    """A number of modelyard.v1.PodVersion.State."""
    digest: str = ""
    load_us: int = 0
    reason: str = ""
    broken: bool = False
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodReport:
    """What a pod tells of itself; its form is checked."""

    id: str
    display_name: str = ""
    draining: bool = False
    revision: int = 0
    versions: Sequence[PodVersion] = ()
    shadows: Sequence[ShadowTotals] = ()
    unchanged: bool = False
    """Nothing but the id and the shadows is told."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as it last told of itself."""

    id: str
    display_name: str
    draining: bool
    revision: int
    create_time: int
    update_time: int
    lease_until: int
    versions: Sequence[PodVersion] = field(default=())


class Pods:
    """Takes reports and lists pods."""

    def __init__(self, database: Database, *, lease_s: float, on_served: Callable[[], None]) -> None:
        """`on_served` is called after a report that put an alias back."""
        self._database = database
        self._on_served = on_served
        self.lease_s = lease_s
        self._lease_us = round(lease_s * 1e6)

    async def report(self, report: PodReport) -> bool:
        """Takes over what the pod tells; False if it said "unchanged" and is not known, and must tell everything."""
        put_back = False
        async with self._database.write() as connection:
            if report.unchanged:
                known = await self._renew(connection, report.id)
            else:
                known = True
                put_back = await self._replace(connection, report)
            await record_shadows(self._database, connection, report.id, report.shadows)
        if put_back:
            self._on_served()
        return known

    async def _renew(self, connection: AsyncConnection, pod_id: str) -> bool:
        values = {"update_time": now_us(), "lease_until": now_us() + self._lease_us}
        return (await connection.execute(update(pods).where(pods.c.id == pod_id).values(values))).rowcount == 1

    async def _replace(self, connection: AsyncConnection, report: PodReport) -> bool:
        """Whether an alias was put back because of it."""
        known = (await connection.execute(select(pods.c.create_time).where(pods.c.id == report.id))).one_or_none()
        row = {
            "id": report.id, "display_name": report.display_name, "draining": report.draining,
            "revision": report.revision, "create_time": known.create_time if known else now_us(),
            "update_time": now_us(), "lease_until": now_us() + self._lease_us,
        }  # fmt: skip
        await connection.execute(insert_or_replace(self._database, pods, row))
        await connection.execute(delete(pod_versions).where(pod_versions.c.pod_id == report.id))
        rows = [
            {**asdict(version), "aliases": list(version.aliases), "pod_id": report.id} for version in report.versions
        ]
        if rows:
            await connection.execute(insert(pod_versions), rows)
        if report.draining:
            return False
        broken = [
            BrokenVersion(version.model_id, version.version, f"{report.display_name or report.id}: {version.reason}")
            for version in report.versions
            if version.broken
        ]
        return await settle_broken(connection, report.revision, broken)

    async def list(self, caller: Caller, page_size: int, page_token: str, model_id: str = "") -> tuple[list[Pod], str]:
        """A page of the pods whose lease has not run out, with the versions that the caller may see."""
        query = select(pods).where(pods.c.lease_until > now_us())
        position = decode_token(page_token, str, str)
        if position is not None:
            after, pod_id = position
            same = (pods.c.display_name == after) & (pods.c.id > pod_id)
            query = query.where((pods.c.display_name > after) | same)
        query = query.order_by(pods.c.display_name, pods.c.id).limit(page_size + 1)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
            page = rows[:page_size]
            found = await _versions_of(connection, caller, [row.id for row in page], model_id)
        answer = [Pod(**row._asdict(), versions=found[row.id]) for row in page]
        token = encode_token(page[-1].display_name, page[-1].id) if len(rows) > page_size else ""
        return answer, token


async def _versions_of(
    connection: AsyncConnection, caller: Caller, pod_ids: Sequence[str], model_id: str
) -> Mapping[str, list[PodVersion]]:
    query = (
        select(pod_versions)
        .join(models, models.c.id == pod_versions.c.model_id)
        .where(pod_versions.c.pod_id.in_(pod_ids), visible_to(caller, models.c.tenant))
        .order_by(pod_versions.c.model_id, pod_versions.c.version)
    )
    if model_id:
        query = query.where(pod_versions.c.model_id == model_id)
    found: dict[str, list[PodVersion]] = {pod_id: [] for pod_id in pod_ids}
    for row in await connection.execute(query):
        found[row.pod_id].append(to_pod_version(row))
    return found


def to_pod_version(row: Row[Any]) -> PodVersion:
    """A row of `pod_versions`."""
    return PodVersion(
        row.model_id, row.version, row.state, row.digest, row.load_us, row.reason, row.broken, tuple(row.aliases)
    )
