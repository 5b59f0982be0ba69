"""What a claim, a report and a reaper cost does not grow with the jobs that have ended, nor with a job's history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, insert, select, text

from modelyard.core.database import Database
from modelyard.gateway.events import Document, Kind, LogLine
from modelyard.gateway.jobs import Job, State
from modelyard.gateway.progress import read_course
from modelyard.gateway.tables import job_attempts, job_checkpoints, job_definitions, job_events, jobs
from support.job_desk import JobDesk, result, saved

FINISHED = 10_000
"""Jobs that have ended."""
HISTORY = 20_000
"""Events of the job that runs."""
_LONG = ("jobs", "job_events", "job_attempts", "job_definitions", "job_checkpoints", "elsewhere")


@contextmanager
def _statements(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Every statement that is executed meanwhile, with its parameters."""
    found: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        found.append((statement, parameters[0] if many else parameters))

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def _fill(desk: JobDesk) -> None:
    """Adds copies of a job that has succeeded, each with its attempt, its checkpoint and its events."""
    job = await desk.claimed()
    await desk.report(job.id, 1, 1, [saved(1)])
    await desk.finishing.succeed(job.id, 1, result())
    async with desk.database.write() as connection:
        for table in (jobs, job_definitions, job_attempts, job_checkpoints, job_events):
            column = table.c["id" if table is jobs else "job_id"]
            rows = (await connection.execute(select(table).where(column == job.id))).mappings().all()
            copies = [{**row, column.name: f"copy-{i}"} for i in range(FINISHED) for row in rows]
            if table is job_checkpoints:
                copies = [copy | {"id": 100 + i, "digest": f"{i:064d}"} for i, copy in enumerate(copies)]
            await connection.execute(insert(table), copies)
        await connection.execute(text("ANALYZE"))


async def _lengthen(desk: JobDesk, job: Job) -> None:
    """Gives the job a long history: a line for each progress."""
    now = await desk.get(job)
    rows = [
        {
            "job_id": job.id, "sequence": now.last_sequence + 1 + i, "time": now.update_time, "attempt": now.attempt,
            "kind": Kind.LOG if i % 2 else Kind.PROGRESS, "text": "a line", "document": b"progress",
            "level": None if i % 2 else ((i // 2 + 1) & -(i // 2 + 1)).bit_length() - 1,
        }
        for i in range(HISTORY)
    ]  # fmt: skip
    await desk.limit(
        job,
        last_sequence=now.last_sequence + HISTORY,
        progress_count=HISTORY // 2,
        progress_sequence=now.last_sequence + HISTORY - 1,
    )
    async with desk.database.write() as connection:
        await connection.execute(insert(job_events), rows)


async def _work(desk: JobDesk) -> Job:
    """What happens all the time."""
    job = await desk.submit()
    await desk.claim(job)
    await desk.report(job.id, 1, 1, [State.RUNNING, Document(Kind.PROGRESS, b"1"), LogLine("a"), saved(1)])
    await desk.reports.report(job.id, 1, 5, [])
    await desk.leases.reap()
    await desk.finishing.publish_stalled()
    return job


async def _scans(database: Database, statements: list[tuple[str, Any]]) -> list[str]:
    """Parts of their plans that read a long table from end to end; SQLite says so."""
    found = []
    async with database.read() as connection:
        for statement, parameters in statements:
            if not statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
                continue
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            found += [
                f"{row.detail}: {statement}"
                for row in plan
                if row.detail.startswith(tuple(f"SCAN {table}" for table in _LONG)) and "INDEX" not in row.detail
            ]
    return found


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_no_statement_of_the_daily_work_reads_all_jobs(desk: JobDesk) -> None:
    with _statements(desk.database) as few:
        await _work(desk)
    await desk.finishing.succeed((await _work(desk)).id, 1, result())
    await _fill(desk)
    with _statements(desk.database) as many:
        job = await _work(desk)
    assert len(many) <= len(few)
    assert await _scans(desk.database, many) == []
    await _lengthen(desk, job)
    with _statements(desk.database) as late:
        await desk.reports.report(job.id, 1, 5, [Document(Kind.PROGRESS, b"2"), LogLine("b")])
        points = await read_course(desk.database, job.id, 100)
    assert 50 <= len(points) <= 100
    assert await _scans(desk.database, late) == []
