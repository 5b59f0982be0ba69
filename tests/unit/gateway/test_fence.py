"""The fence under random interleavings of workers, users, crashes and an unreliable registry; no job is ever stuck."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from modelyard.core.database import Database
from modelyard.core.errors import StaleAttempt, Unavailable, WrongState
from modelyard.gateway.attempts import RELEASES, EndCause
from modelyard.gateway.claims import Asker
from modelyard.gateway.events import Kind, LogLine
from modelyard.gateway.jobs import HELD, STOPPING, TERMINAL, TRANSITIONS, FailureReason, State
from modelyard.gateway.reports import Update
from support.gateway_database import copy_migrated_sqlite
from support.job_desk import MAX_ATTEMPTS, JobDesk, MemoryPublisher, result, saved

T = TypeVar("T")

MEMORY = Path("/dev/shm")
"""Where it exists, a database does not wait for a disk."""

PICK = st.integers(0, 11)
"""Chooses one of however many there are."""


@dataclass
class Attempt:
    """What a worker knows of its claim."""

    job_id: str
    number: int
    sent: int = 0
    """Updates that were sent and confirmed."""


class Witness:
    """Looks at the tables by another way than the code under test."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        self._connection.row_factory = sqlite3.Row

    def job(self, job_id: str) -> sqlite3.Row:
        """The job's row."""
        row: sqlite3.Row = self._connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return row

    def events(self, job_id: str) -> list[sqlite3.Row]:
        """Its history."""
        query = "SELECT * FROM job_events WHERE job_id = ? ORDER BY sequence"
        return self._connection.execute(query, (job_id,)).fetchall()

    def attempts(self, job_id: str) -> list[sqlite3.Row]:
        """Its attempts."""
        query = "SELECT * FROM job_attempts WHERE job_id = ? ORDER BY attempt"
        return self._connection.execute(query, (job_id,)).fetchall()

    def close(self) -> None:
        self._connection.close()


def is_recorded(row: sqlite3.Row) -> bool:
    """Whether the job's result is recorded and on its way into the registry."""
    return row["state"] == "PUBLISHING" and row["artifact"] is not None


def _is_lost(row: sqlite3.Row) -> bool:
    """Whether the job's worker has not reported for too long, and the job may be given to another one."""
    return row["state"] in HELD - STOPPING and row["lease_until"] == 1 and not is_recorded(row)


class Fence(RuleBasedStateMachine):
    """Whoever has ever held an attempt may try anything at any time; only the current one gets anything done."""

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.database = Database(copy_migrated_sqlite(Path(self.folder.name)))
        self.witness = Witness(Path(self.folder.name) / "gateway.sqlite")
        self.publisher = MemoryPublisher()
        self.lines: dict[str, list[str]] = {}
        """Log lines that were accepted, by job."""
        self.attempts: list[Attempt] = []
        self._restart()
        self.claim(0)

    def teardown(self) -> None:
        try:
            self._run(self._finish_everything())
            self.histories_have_no_gap_and_follow_the_table()
            self.every_job_publishes_at_most_once_and_only_if_it_succeeds()
            self.attempts_are_written_down_from_their_claim_to_their_end()
        finally:
            self.witness.close()
            self._run(self.database.close())
            self.runner.close()
            self.folder.cleanup()

    @rule(pick=PICK, is_due=st.booleans())
    def claim(self, pick: int, is_due: bool = True) -> None:
        living = [job_id for job_id in self.lines if self.witness.job(job_id)["state"] not in TERMINAL]
        job_id = living[pick % len(living)] if living else self._run(self.desk.submit()).id
        self.lines.setdefault(job_id, [])
        if is_due:
            self._run(self.desk.end_wait(self._run(self.desk.ledger.get(job_id))))
        before = {known: self.witness.job(known) for known in self.lines}
        claim = self._run(self.desk.claims.claim(job_id, Asker(f"host/{pick}")))
        # The doorbell names a job whose lease may have run out; whatever waits then may be given away.
        free = {known for known, job in before.items() if job["state"] == "QUEUED" and job["retry_time"] in {None, 1}}
        # A job that was lost before has to wait, or has no retry left.
        if _is_lost(before[job_id]) and not before[job_id]["infrastructure_retries"]:
            free.add(job_id)
        assert (claim is not None) == bool(free)
        if claim is not None:
            assert claim.job.id in free
            assert claim.job.attempt == before[claim.job.id]["attempt"] + 1
            self.attempts.append(Attempt(claim.job.id, claim.job.attempt))

    @rule(pick=PICK, is_noticed=st.booleans())
    def lose_a_worker(self, pick: int, is_noticed: bool) -> None:
        job = self._run(self.desk.ledger.get(self._attempt(pick).job_id))
        self._run(self.desk.expire_lease(job))
        if is_noticed:
            self._run(self.desk.leases.reap())

    @rule(pick=PICK, is_noticed=st.booleans())
    def replace_a_worker(self, pick: int, is_noticed: bool) -> None:
        self.lose_a_worker(pick, is_noticed)
        self.claim(pick)

    @rule(pick=PICK, state=st.sampled_from([None, State.PREPARING, State.RUNNING, State.PUBLISHING]))
    def report(self, pick: int, state: State | None) -> None:
        attempt = self._attempt(pick)
        line = f"{attempt.number}.{attempt.sent}"
        updates: list[Update] = [LogLine(line)] if state is None else [state, LogLine(line)]
        reports = self.desk.reports
        receipt = self._try(attempt, reports.report(attempt.job_id, attempt.number, attempt.sent + 1, updates))
        if receipt is not None:
            attempt.sent = receipt.updates_received
            self.lines[attempt.job_id].append(line)
            # The answer was lost, and the worker says it again.
            self._try(attempt, reports.report(attempt.job_id, attempt.number, attempt.sent, updates[-1:]))

    @rule(pick=PICK, registry=st.sampled_from(["well", "away", "away", "answers are lost"]))
    def succeed(self, pick: int, registry: str) -> None:
        self.publisher.away_before, self.publisher.away_after = registry == "away", registry == "answers are lost"
        attempt = self._attempt(pick)
        digest = f"{attempt.number:064x}"  # every attempt has another result
        self._try(attempt, self.desk.finishing.succeed(attempt.job_id, attempt.number, result(digest)))

    @rule(pick=PICK, is_cancelled=st.booleans())
    def give_up(self, pick: int, is_cancelled: bool) -> None:
        attempt, finishing = self._attempt(pick), self.desk.finishing
        job_id, number = attempt.job_id, attempt.number
        if is_cancelled:
            self._try(attempt, finishing.cancel(job_id, number))
        else:
            self._try(attempt, finishing.fail(job_id, number, FailureReason.DATA, "bad"))

    @rule(pick=PICK, cause=st.sampled_from(sorted(RELEASES)))
    def release(self, pick: int, cause: EndCause) -> None:
        attempt = self._attempt(pick)
        self._try(attempt, self.desk.finishing.release(attempt.job_id, attempt.number, cause, "given back"))

    @rule(pick=PICK, change=st.sampled_from(["pause", "resume", "resume", "preempt"]))
    def pause_resume_or_preempt_as_a_user(self, pick: int, change: str) -> None:
        job_id = self._attempt(pick).job_id
        before = self.witness.job(job_id)
        try:
            self._run(getattr(self.desk, change)(self._run(self.desk.ledger.get(job_id))))
        except WrongState:
            assert self.witness.job(job_id) == before
        else:
            assert before["state"] not in TERMINAL
            assert change == "resume" or not is_recorded(before)

    @rule(pick=PICK, step=st.integers(0, 500))
    def save(self, pick: int, step: int) -> None:
        attempt = self._attempt(pick)
        before = self.witness.job(attempt.job_id)
        report = self.desk.report(attempt.job_id, attempt.number, attempt.sent + 1, [saved(step)])
        receipt = self._try(attempt, report)
        if receipt is not None:
            attempt.sent = receipt.updates_received
            assert self.witness.job(attempt.job_id)["checkpoint_step"] == max(step, before["checkpoint_step"])

    @rule(pick=PICK, is_restarted=st.booleans())
    def publish_stalled(self, pick: int, is_restarted: bool) -> None:
        if is_restarted:
            self._restart()
        self._run(self.desk.finishing.publish_stalled())

    @rule(pick=PICK)
    def cancel_as_a_user(self, pick: int) -> None:
        job_id = self._attempt(pick).job_id
        before = self.witness.job(job_id)
        try:
            self._run(self.desk.cancel(self._run(self.desk.ledger.get(job_id))))
            assert not is_recorded(before)
        except WrongState:
            assert before["state"] in TERMINAL or is_recorded(before)
            assert self.witness.job(job_id) == before

    @invariant()
    def histories_have_no_gap_and_follow_the_table(self) -> None:
        for job_id, lines in getattr(self, "lines", {}).items():
            job, history = self.witness.job(job_id), self.witness.events(job_id)
            assert [event["sequence"] for event in history] == list(range(1, job["last_sequence"] + 1))
            assert [event["attempt"] for event in history] == sorted(event["attempt"] for event in history)
            changes = [event for event in history if event["kind"] == "STATE"]
            assert changes[0]["state"] == State.QUEUED
            for before, after in pairwise(changes):
                assert after["previous_state"] == before["state"]
                assert after["state"] in TRANSITIONS[State(before["state"])]
            assert changes[-1]["state"] == job["state"]
            assert sum(change["state"] == State.LEASED for change in changes) == job["attempt"]
            assert (history[-1]["state"] in TERMINAL) == (job["state"] in TERMINAL)
            assert [event["text"] for event in history if event["kind"] == "LOG"] == lines

    @invariant()
    def every_job_publishes_at_most_once_and_only_if_it_succeeds(self) -> None:
        for job_id in getattr(self, "lines", {}):
            job, version = self.witness.job(job_id), self.publisher.versions.get(job_id)
            if job["state"] == State.SUCCEEDED:
                assert job["model_version"] == version
            else:
                assert job["model_version"] == ""
                assert version is None or is_recorded(job)

    @invariant()
    def attempts_are_written_down_from_their_claim_to_their_end(self) -> None:
        for job_id in getattr(self, "lines", {}):
            job, attempts = self.witness.job(job_id), self.witness.attempts(job_id)
            assert [attempt["attempt"] for attempt in attempts] == list(range(1, job["attempt"] + 1))
            ended = [attempt["attempt"] for attempt in attempts if attempt["end_time"] is not None]
            assert len(ended) == job["attempt"] - (job["state"] in HELD)
            ends = [event for event in self.witness.events(job_id) if event["kind"] == Kind.ATTEMPT_END]
            assert [event["attempt"] for event in ends] == ended
            causes = [attempts[event["attempt"] - 1]["end_cause"] for event in ends]
            assert [event["end_cause"] for event in ends] == causes

    @invariant()
    def whoever_has_to_act_on_a_job_will_find_it(self) -> None:
        """The reaper by the lease, the reconciler by the doorbell's time, a user by the pause."""
        for job_id in getattr(self, "lines", {}):
            job = self.witness.job(job_id)
            assert (job["lease_until"] is not None) == (job["state"] in HELD)
            assert (job["rung_time"] is not None) == (job["state"] == State.QUEUED)
            assert job["state"] in HELD | TERMINAL | {State.QUEUED, State.PAUSED}
            assert job["retry_time"] is None or job["state"] == State.QUEUED
            assert job["retry_time"] in {None, 1} or job["rung_time"] == job["retry_time"]
            assert job["infrastructure_retries"] <= MAX_ATTEMPTS

    def _attempt(self, pick: int) -> Attempt:
        """A claim of some worker, mostly of a job that has not ended."""
        living = [attempt for attempt in self.attempts if self.witness.job(attempt.job_id)["state"] not in TERMINAL]
        choice = living if living and pick < 10 else self.attempts
        return choice[pick % len(choice)]

    def _try(self, attempt: Attempt, action: Awaitable[T]) -> T | None:
        """Does what a worker does; an attempt that does not hold the job must be told so, and change nothing."""
        before = self.witness.job(attempt.job_id)
        ended_it = before["finished_attempt"] == attempt.number
        holds = before["state"] in HELD and before["attempt"] == attempt.number
        try:
            answer = self._run(action)
            assert holds or ended_it
            if ended_it:
                assert self.witness.job(attempt.job_id) == before
            return answer
        except StaleAttempt:  # of an attempt that gave the job back only the same again is not stale
            assert not holds
            assert self.witness.job(attempt.job_id) == before
        except WrongState:
            assert holds or ended_it
            assert self.witness.job(attempt.job_id) == before
        except Unavailable:
            assert is_recorded(self.witness.job(attempt.job_id))
        return None

    def _restart(self) -> None:
        self.desk = JobDesk(self.database, self.publisher)

    async def _finish_everything(self) -> None:
        """From wherever the machine stopped, every job comes to its end."""
        self.publisher.away_before = self.publisher.away_after = False
        for job_id in self.lines:
            while not (job := await self.desk.ledger.get(job_id)).is_terminal:
                await self.desk.expire_lease(job)
                await self.desk.leases.reap()
                await self.desk.finishing.publish_stalled()
                if (await self.desk.ledger.get(job_id)).state is State.PAUSED:
                    await self.desk.resume(job)
                await self.desk.end_wait(job)
                claim = await self.desk.claims.claim(job_id, Asker("host/last"))
                if claim is not None:
                    await self.desk.finishing.succeed(claim.job.id, claim.job.attempt, result())

    def _run(self, action: Awaitable[T]) -> T:
        async def wait() -> T:
            return await action

        return self.runner.run(wait())


TestFence = Fence.TestCase
TestFence.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
