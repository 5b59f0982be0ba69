"""A tenant's share and bounds: defaults, changes, and who comes first."""

from __future__ import annotations

import asyncio

import pytest

from modelyard.core.database import Database
from modelyard.core.errors import Conflict, InvalidFields
from modelyard.gateway.tenants import Bounds, Tenant
from support.job_desk import JobDesk


async def test_a_tenant_that_nobody_has_heard_of_has_the_clusters_bounds(database: Database) -> None:
    bounds = Bounds(max_running_jobs=7, max_waiting_jobs=9)
    assert await JobDesk(database, bounds=bounds).tenants.get("new") == Tenant("new", bounds, 0, 0, 0)


async def test_jobs_that_wait_and_run_are_counted_over_all_queues(desk: JobDesk) -> None:
    cpu, gpu = await desk.submit(), await desk.submit(queue="gpu")
    await desk.submit()
    await desk.claim(cpu)
    await desk.claim(gpu)
    tenant = await desk.tenants.get("default")
    assert (tenant.running_jobs, tenant.waiting_jobs) == (2, 1)


async def test_a_change_leaves_the_rest_as_it_was(desk: JobDesk) -> None:
    await desk.tenants.update("team", {"weight": 2.0, "max_running_jobs": 3})
    changed = await desk.tenants.update("team", {"max_waiting_jobs": 4})
    assert changed.bounds == Bounds(2.0, 3, 4)
    assert changed.revision == 2


async def test_of_two_that_have_seen_the_same_only_one_changes_it(desk: JobDesk) -> None:
    for revision in ("0", "1"):
        answers = await asyncio.gather(
            *(desk.tenants.update("team", {"weight": float(i + 1)}, etag=revision) for i in range(4)),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, Tenant) for answer in answers) == 1
        assert sum(isinstance(answer, Conflict) for answer in answers) == 3


@pytest.mark.parametrize(
    "changes", [{"weight": 0.0}, {"weight": 101.0}, {"max_running_jobs": -1}, {"max_waiting_jobs": 10**7}], ids=str
)
async def test_what_makes_no_sense_is_refused(desk: JobDesk, changes: dict[str, float]) -> None:
    with pytest.raises(InvalidFields, match=f"tenant.{next(iter(changes))}: expected 0"):
        await desk.tenants.update("team", changes)
    assert (await desk.tenants.get("team")).revision == 0


async def test_tenants_with_jobs_or_settings_are_listed_by_name_page_by_page(desk: JobDesk) -> None:
    for tenant in ("b", "d", "a"):
        await desk.submit(tenant=tenant)
    for tenant in ("c", "b"):
        await desk.tenants.update(tenant, {"weight": 3.0})
    names, token = [], ""
    while True:
        page, token = await desk.tenants.page(page_size=3, page_token=token)
        names += [tenant.id for tenant in page]
        if not token:
            break
    assert names == ["a", "b", "c", "d"]
