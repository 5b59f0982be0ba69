"""Watching: every event once and in order, live, across processes, to the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from modelyard.core.errors import InvalidFields, NotFound, Unavailable
from modelyard.gateway import watch
from modelyard.gateway.events import Event, LogLine, StateChange
from modelyard.gateway.jobs import State
from modelyard.gateway.notices import Notices
from modelyard.gateway.watch import Watch
from support.job_desk import JobDesk, result


@asynccontextmanager
async def _watching(stream: AsyncIterator[Event]) -> AsyncIterator[asyncio.Task[list[Event]]]:
    """Collects a stream in the background."""

    async def collect() -> list[Event]:
        return [event async for event in stream]

    task = asyncio.create_task(collect())
    try:
        yield task
    finally:
        task.cancel()


async def _collected(task: asyncio.Task[list[Event]]) -> list[Event]:
    return await asyncio.wait_for(task, timeout=20)


async def test_the_history_of_an_ended_job_is_replayed_and_the_stream_ends(desk: JobDesk) -> None:
    job = await desk.claimed()
    await desk.finishing.succeed(job.id, 1, result())
    stream = desk.watch.events(job.id, 0, tenant="default")
    assert [event async for event in stream] == await desk.history(job)


@pytest.mark.parametrize("after", range(8))
async def test_a_replay_starts_behind_any_sequence(desk: JobDesk, after: int) -> None:
    job = await desk.claimed()
    await desk.finishing.succeed(job.id, 1, result())
    events = [event.sequence async for event in desk.watch.events(job.id, after, tenant=None)]
    assert events == list(range(after + 1, 8))


async def test_what_happens_next_follows_without_a_gap(desk: JobDesk) -> None:
    job = await desk.submit()
    async with _watching(desk.watch.events(job.id, 0, tenant=None)) as task:
        await desk.claim(job)
        for step in range(30):
            await desk.reports.report(job.id, 1, step + 1, [LogLine(str(step))])
        await desk.finishing.succeed(job.id, 1, result())
        events = await _collected(task)
    assert events == await desk.history(job)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_a_long_history_is_read_in_pages(desk: JobDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PAGE", 7)
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [LogLine(str(line)) for line in range(100)])
    await desk.finishing.succeed(job.id, 1, result())
    events = [event async for event in desk.watch.events(job.id, 0, tenant=None)]
    assert events == await desk.history(job)


async def test_what_another_process_writes_is_found_by_polling(desk: JobDesk) -> None:
    job = await desk.submit()
    notices = Notices()  # of a gateway that hears nothing of the commits of the other one
    replica = Watch(desk.ledger, notices)
    async with _watching(replica.events(job.id, 0, tenant=None)) as task:
        await desk.cancel(job)
        async with asyncio.timeout(20):
            while not task.done():
                await notices.poll(desk.database)
                await asyncio.sleep(0)
        events = await _collected(task)
    assert events == await desk.history(job)


async def test_a_slow_reader_misses_nothing(desk: JobDesk) -> None:
    job = await desk.claimed()
    stream = desk.watch.events(job.id, 0, tenant=None)
    seen = [await anext(stream)]
    await desk.reports.report(job.id, 1, 1, [State.RUNNING, LogLine("a")])
    seen.append(await anext(stream))
    await desk.finishing.succeed(job.id, 1, result())
    seen += [event async for event in stream]
    assert seen == await desk.history(job)


async def test_many_watchers_see_the_same(desk: JobDesk) -> None:
    job = await desk.submit()
    streams = [desk.watch.events(job.id, 0, tenant=None) for _ in range(10)]
    collected = [asyncio.create_task(_list(stream)) for stream in streams]
    await desk.cancel(job)
    async with asyncio.timeout(20):
        for events in await asyncio.gather(*collected):
            assert [type(event.payload) for event in events] == [StateChange, StateChange]


async def _list(stream: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in stream]


async def test_a_stopping_process_sends_its_watchers_away(desk: JobDesk) -> None:
    job = await desk.submit()
    stream = desk.watch.events(job.id, 0, tenant=None)
    await anext(stream)
    desk.notices.close()
    with pytest.raises(Unavailable) as caught:
        await anext(stream)
    assert caught.value.retry_after is not None
    with pytest.raises(Unavailable):  # one that comes late, too
        await anext(desk.watch.events(job.id, 1, tenant=None))


async def test_nothing_is_kept_of_a_watcher_that_left(desk: JobDesk) -> None:
    job = await desk.submit()
    stream = desk.watch.events(job.id, 0, tenant=None)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert not desk.notices._topics


@pytest.mark.parametrize("after", [-1, 2, 1000])
async def test_a_point_outside_the_history_is_refused(desk: JobDesk, after: int) -> None:
    job = await desk.submit()
    with pytest.raises(InvalidFields, match="expected 0 to 1"):
        await anext(desk.watch.events(job.id, after, tenant=None))


async def test_another_tenants_job_is_not_found(desk: JobDesk) -> None:
    job = await desk.submit()
    with pytest.raises(NotFound):
        await anext(desk.watch.events(job.id, 0, tenant="other"))


@pytest.mark.parametrize("after", [0, 1, 3, 4])
async def test_history_alone_ends_although_the_job_goes_on(
    desk: JobDesk, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(watch, "PAGE", 2)
    job = await desk.claimed()
    await desk.reports.report(job.id, 1, 1, [LogLine("one"), LogLine("two")])
    stream = desk.watch.events(job.id, after, tenant="default", history_only=True)
    async with _watching(stream) as task:
        assert await _collected(task) == (await desk.history(job))[after:]


async def test_history_alone_stops_at_what_was_recorded_when_the_call_came(desk: JobDesk) -> None:
    job = await desk.claimed()
    stream = desk.watch.events(job.id, 0, tenant="default", history_only=True)
    first = await anext(stream)
    await desk.reports.report(job.id, 1, 1, [LogLine("later")])
    assert [first.sequence, *[event.sequence async for event in stream]] == [1, 2, 3]
