"""The course of a job's progress: evenly thinned, the newest always there, at the cost of what is answered."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.gateway.events import Document, Event, Kind, LogLine
from modelyard.gateway.progress import level_of, lowest_level, read_course
from modelyard.gateway.reports import Update
from support.job_desk import JobDesk


def _numbers(points: list[Event]) -> list[int]:
    return [int(event.payload.body) for event in points if isinstance(event.payload, Document)]


async def _report(desk: JobDesk, job_id: str, attempt: int, numbers: range) -> None:
    """Progress with a line between every two, as many per report as one keeps."""
    sent = 0
    for start in range(numbers.start, numbers.stop, 40):
        updates: list[Update] = []
        for number in range(start, min(start + 40, numbers.stop)):
            updates += [Document(Kind.PROGRESS, str(number).encode()), LogLine("a line")]
        await desk.reports.report(job_id, attempt, sent + 1, updates)
        sent += len(updates)


@given(count=st.integers(1, 100_000), max_points=st.integers(1, 10_000))
def test_there_are_never_too_many_points_and_seldom_few(count: int, max_points: int) -> None:
    lowest = lowest_level(count, max_points)
    points = {number for number in range(1, count + 1) if level_of(number) >= lowest} if count < 5000 else None
    answered = (count >> lowest) + (level_of(count) < lowest)
    assert points is None or len(points | {count}) == answered
    assert answered <= max_points
    assert answered == count or answered >= (max_points - 1) // 2


@pytest.mark.parametrize("max_points", [1, 2, 7, 50, 149, 150, 10_000])
async def test_points_are_in_order_evenly_spread_and_the_newest_is_there(desk: JobDesk, max_points: int) -> None:
    job = await desk.claimed()
    await _report(desk, job.id, 1, range(1, 151))
    points = await read_course(desk.database, job.id, max_points)
    numbers = _numbers(points)
    assert len(numbers) <= max_points
    assert numbers == sorted(numbers)
    assert numbers[-1] == 150
    gaps = {after - before for before, after in pairwise(numbers[:-1])}
    assert len(gaps) <= 1  # the last gap, to the newest, may be another
    assert len(numbers) == 150 or len(numbers) >= (max_points - 1) // 2


async def test_a_job_without_progress_has_no_points(desk: JobDesk) -> None:
    job = await desk.submit()
    assert await read_course(desk.database, job.id, 10) == []


async def test_the_course_goes_on_over_attempts(desk: JobDesk) -> None:
    job = await desk.claimed()
    await _report(desk, job.id, 1, range(1, 6))
    await desk.expire_lease(job)
    await desk.claim(job)
    await _report(desk, job.id, 2, range(3, 8))
    points = await read_course(desk.database, job.id, 100)
    assert [(event.attempt, number) for event, number in zip(points, _numbers(points), strict=True)] == [
        (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 3), (2, 4), (2, 5), (2, 6), (2, 7),
    ]  # fmt: skip
    job = await desk.get(job)
    assert (job.progress_count, job.progress_sequence) == (10, points[-1].sequence)
