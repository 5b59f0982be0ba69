"""Pages of jobs."""

from __future__ import annotations

import pytest

from modelyard.core.errors import InvalidFields
from modelyard.gateway.jobs import State
from modelyard.gateway.listing import list_jobs
from support.job_desk import JobDesk, caller, submission


async def _all_ids(desk: JobDesk, page_size: int, **filters: object) -> list[list[str]]:
    pages, token = [], ""
    while True:
        page, token = await list_jobs(desk.database, page_size=page_size, page_token=token, **filters)  # type: ignore[arg-type]
        pages.append([job.id for job in page])
        if not token:
            return pages


async def test_pages_hold_every_job_once_newest_first(desk: JobDesk) -> None:
    jobs = [await desk.submit() for _ in range(7)]
    expected = [job.id for job in sorted(jobs, key=lambda job: (job.create_time, job.id), reverse=True)]
    for size in (1, 2, 3, 7, 8):
        pages = await _all_ids(desk, size, tenant="default")
        assert [job_id for page in pages for job_id in page] == expected
        assert all(len(page) == size for page in pages[:-1])


async def test_a_job_that_comes_between_two_pages_shifts_nothing(desk: JobDesk) -> None:
    jobs = {(await desk.submit()).id for _ in range(4)}
    first, token = await list_jobs(desk.database, tenant="default", page_size=2)
    await desk.submit()
    second, _ = await list_jobs(desk.database, tenant="default", page_size=2, page_token=token)
    assert {job.id for job in (*first, *second)} == jobs


async def test_filters(desk: JobDesk) -> None:
    held, queued = await desk.claimed(), await desk.submit()
    theirs = await desk.submissions.submit(submission(), caller(tenant="other"))
    assert await _all_ids(desk, 9, tenant="default", states={State.QUEUED}) == [[queued.id]]
    assert await _all_ids(desk, 9, tenant="default", states={State.LEASED, State.RUNNING}) == [[held.id]]
    assert await _all_ids(desk, 9, tenant="default", model="another-model") == [[]]
    assert set((await _all_ids(desk, 9, tenant="default", model="house-prices"))[0]) == {queued.id, held.id}
    assert await _all_ids(desk, 9, tenant="other") == [[theirs.id]]
    assert len((await _all_ids(desk, 9, tenant=None))[0]) == 3


@pytest.mark.parametrize("token", ["nonsense", "W10", "WyJhIiwgImIiXQ"])
async def test_a_foreign_page_token_is_refused(desk: JobDesk, token: str) -> None:
    with pytest.raises(InvalidFields, match="page_token"):
        await list_jobs(desk.database, tenant=None, page_size=1, page_token=token)
