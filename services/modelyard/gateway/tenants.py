"""A tenant's share of the workers and its bounds. A tenant without settings of its own has the cluster's."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CompoundSelect, Select, String, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database, serialise
from modelyard.core.errors import Conflict, ResourceExhausted, Violations
from modelyard.core.paging import decode_token, encode_token

from . import tables, vacancies
from .doorbells import Doorbell
from .tables import jobs

MIN_WEIGHT = 0.01
MAX_WEIGHT = 100.0
MAX_JOBS = 1_000_000
_RETRY_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """A tenant's share and limits."""

    weight: float = 1.0
    """Of two tenants with waiting jobs, one of twice the weight runs twice as many."""
    max_running_jobs: int = 0
    """In all queues together; 0: no limit."""
    max_waiting_jobs: int = 0
    """In all queues together; 0: no limit."""

    def overlaid(self, weight: float | None, max_running_jobs: int | None, max_waiting_jobs: int | None) -> Bounds:
        """These bounds with what a tenant has of its own."""
        return Bounds(
            self.weight if weight is None else weight,
            self.max_running_jobs if max_running_jobs is None else max_running_jobs,
            self.max_waiting_jobs if max_waiting_jobs is None else max_waiting_jobs,
        )

    def room(self, running: int, wanted: int = 1) -> int:
        """How many of the wanted jobs a tenant that runs so many may start."""
        limit = self.max_running_jobs
        return max(0, min(wanted, limit - running)) if limit else wanted


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant as it is now."""

    id: str
    bounds: Bounds
    running_jobs: int
    waiting_jobs: int
    revision: int
    """Counts the changes of its settings."""


class Tenants:
    """Shows and changes tenants."""

    def __init__(
        self,
        database: Database,
        defaults: Bounds,
        *,
        on_doorbell: Callable[[Doorbell], None] = lambda _doorbell: None,
    ) -> None:
        """`defaults`: for tenants without bounds of their own. `on_doorbell` hears of each doorbell that this process
        is to ring since a tenant may run more jobs, after the commit."""
        self._database = database
        self.defaults = defaults
        self._on_doorbell = on_doorbell

    async def get(self, tenant: str) -> Tenant:
        """One tenant; one that nobody has heard of has the defaults and no jobs."""
        async with self._database.read() as connection:
            return await self._read(connection, tenant)

    async def page(self, *, page_size: int, page_token: str) -> tuple[list[Tenant], str]:
        """At most `page_size` tenants that have jobs or settings of their own, by name, and the next page's token."""
        position = decode_token(page_token, str)
        after = str(position[0]) if position else ""
        async with self._database.read() as connection:
            names = (await connection.execute(_NAMES, {"after": after, "limit": page_size + 1})).scalars().all()
            page = [await self._read(connection, name) for name in names[:page_size]]
        return page, encode_token(page[-1].id) if len(names) > page_size else ""

    async def update(self, tenant: str, changes: Mapping[str, float], *, etag: str = "") -> Tenant:
        """Changes some of `Bounds`; the tenant as it is then.

        `etag`: the revision that the caller has seen; empty: any. Raises InvalidFields, or Conflict if somebody else
        came first.
        """
        _check(changes)
        async with self._database.write() as connection:
            before = await self._read(connection, tenant)
            if etag not in {"", str(before.revision)}:
                raise _conflict(tenant, before.revision)
            if not await _write(connection, tenant, changes, before.revision):
                raise _conflict(tenant, before.revision + 1)
            after = await self._read(connection, tenant)
            rung = await self._ring(connection, before, after)
        for doorbell in rung:
            self._on_doorbell(doorbell)
        return after

    async def _read(self, connection: AsyncConnection, tenant: str) -> Tenant:
        row = (await connection.execute(_ONE, {"of_tenant": tenant})).one()
        bounds = self.defaults.overlaid(row.weight, row.max_running_jobs, row.max_waiting_jobs)
        return Tenant(tenant, bounds, row.running, row.waiting, row.revision or 0)

    async def _ring(self, connection: AsyncConnection, before: Tenant, after: Tenant) -> list[Doorbell]:
        may_run_more = not before.bounds.room(before.running_jobs) and after.bounds.room(after.running_jobs)
        return await vacancies.ring_all_for(connection, after.id) if may_run_more else []


async def check_waiting(connection: AsyncConnection, tenant: str, defaults: Bounds) -> None:
    """Raises ResourceExhausted if the tenant has as many jobs waiting as it may.

    Of submissions in one tenant that come at the same time, each sees those before it.
    """
    await serialise(connection, _lock_key(tenant))
    waiting, own_limit = (await connection.execute(_WAITING, {"of_tenant": tenant})).one()
    limit = defaults.overlaid(None, None, own_limit).max_waiting_jobs
    if limit and waiting >= limit:
        raise ResourceExhausted(
            f"the tenant {tenant} has {waiting} jobs waiting and may have {limit}; submit again when some have started",
            retry_after=_RETRY_AFTER_S,
            metadata={"tenant": tenant, "waiting": str(waiting), "limit": str(limit)},
        )


def _check(changes: Mapping[str, float]) -> None:
    violations = Violations()
    weight = changes.get("weight", 1.0)
    violations.check(
        MIN_WEIGHT <= weight <= MAX_WEIGHT, "tenant.weight", f"expected {MIN_WEIGHT} to {MAX_WEIGHT:g}, got {weight:g}"
    )
    for name in ("max_running_jobs", "max_waiting_jobs"):
        limit = changes.get(name, 0)
        violations.check(
            0 <= limit <= MAX_JOBS, f"tenant.{name}", f"expected 0 (no limit) to {MAX_JOBS:,}, got {limit}"
        )
    violations.raise_if_any()


async def _write(connection: AsyncConnection, tenant: str, changes: Mapping[str, float], revision: int) -> bool:
    """Whether the row was still the one of this revision."""
    table = tables.tenants
    if not revision:
        try:
            await connection.execute(insert(table).values(id=tenant, revision=1, **changes))
        except IntegrityError:
            return False
        return True
    same = update(table).where(table.c.id == tenant, table.c.revision == revision)
    return bool((await connection.execute(same.values(revision=revision + 1, **changes))).rowcount)


def _conflict(tenant: str, revision: int) -> Conflict:
    return Conflict(f"tenants/{tenant} was changed by somebody else", metadata={"etag": str(revision)})


def _lock_key(tenant: str) -> int:
    """For `serialise`: the same for the same tenant, in every replica."""
    return zlib.crc32(tenant.encode()) | 1 << 40


def _names() -> CompoundSelect[Any]:
    """Tenants with jobs are found by leaps through the index, however many jobs there are."""
    first = select(func.min(jobs.c.tenant).label("tenant")).where(jobs.c.tenant > bindparam("after"))
    found = first.cte("found", recursive=True)
    following = select(func.min(jobs.c.tenant)).where(jobs.c.tenant > found.c.tenant).correlate(found)
    found = found.union_all(select(following.scalar_subquery()).where(found.c.tenant.is_not(None)))
    with_jobs = select(found.c.tenant).where(found.c.tenant.is_not(None))
    with_settings = select(tables.tenants.c.id).where(tables.tenants.c.id > bindparam("after"))
    return with_jobs.union(with_settings).order_by("tenant").limit(bindparam("limit"))


def _one() -> Select[Any]:
    of_tenant = jobs.c.tenant == bindparam("of_tenant")
    running = select(func.count()).select_from(jobs).where(of_tenant, jobs.c.lease_until.is_not(None))
    table = tables.tenants
    name = select(bindparam("of_tenant", type_=String).label("id")).subquery()
    return select(
        table.c.weight, table.c.max_running_jobs, table.c.max_waiting_jobs, table.c.revision,
        running.scalar_subquery().label("running"), _COUNT_WAITING.scalar_subquery().label("waiting"),
    ).select_from(name.outerjoin(table, table.c.id == name.c.id))  # fmt: skip


_COUNT_WAITING = (
    select(func.count())
    .select_from(jobs)
    .where(jobs.c.tenant == bindparam("of_tenant"), jobs.c.queued_time.is_not(None))
)
_WAITING = select(
    _COUNT_WAITING.scalar_subquery(),
    select(tables.tenants.c.max_waiting_jobs).where(tables.tenants.c.id == bindparam("of_tenant")).scalar_subquery(),
)
_NAMES = _names()
_ONE = _one()
