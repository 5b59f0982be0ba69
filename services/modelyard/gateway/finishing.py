"""The end of an attempt. A success is published at most once, whatever dies in between:

1. The result is recorded on the job's row, behind the fence. From here on no other attempt can get the job.
2. The registry creates the version, idempotently by the job's id.
3. The job becomes SUCCEEDED with that version.

Each step may be repeated: by the worker that repeats its call, or by the gateway itself (`publish_stalled`) when
neither the worker nor the gateway that took the call is there any more.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Protocol

from sqlalchemy import select, update

from modelyard.core.database import now_us
from modelyard.core.errors import ModelyardError, Unavailable, WrongState
from modelyard.core.logs import get_logger

from .attempts import EndCause
from .events import AttemptEnd, Document, Kind
from .jobs import FailureReason, Job, State, check_transition
from .ledger import Edit, Ledger
from .retries import Ending, Retries
from .selection import chosen_once
from .tables import jobs

_CAUSES = {FailureReason.INTERNAL: EndCause.WORKER_FAULT, FailureReason.DEADLINE: EndCause.DEADLINE}
"""Failures that are not the job's own fault."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class Result:
    """What a successful attempt has uploaded."""

    digest: str
    """SHA-256 of the ONNX file."""
    artifact: bytes = field(repr=False)
    """The worker's whole description of it, serialized."""
    evaluation: bytes | None = field(repr=False)
    """The evaluation in it, serialized."""


class PublicationRefused(Exception):
    """The registry will never take this artifact; the text says why."""


class Publisher(Protocol):
    """Makes the recorded result of a job a version of its model."""

    async def publish(self, job: Job) -> str:
        """The version's resource name, the same at every call. Raises PublicationRefused, or Unavailable."""


class Finishing:
    """Ends attempts."""

    def __init__(self, ledger: Ledger, publisher: Publisher, retries: Retries, *, lease_us: int) -> None:
        self._ledger = ledger
        self._retries = retries
        self._publisher = publisher
        self._lease_us = lease_us
        self._underway: dict[str, asyncio.Task[Job]] = {}

    async def succeed(self, job_id: str, attempt: int, result: Result) -> Job:
        """Publishes the result; the job, SUCCEEDED. CANCELLED if that was asked for, FAILED if the registry refuses.

        Raises StaleAttempt, WrongState if another result is recorded, Unavailable if the registry is away: the result
        is safe then, and the call may be repeated.
        """
        async with self._ledger.edit(job_id) as edit:
            if edit.job.is_terminal and edit.job.finished_attempt == attempt:
                return _same_result(edit.job, result)
            edit.require_attempt(attempt)
            if edit.job.state is State.CANCELLING:
                self._end(edit, Ending(EndCause.CANCELLED))
            elif edit.job.is_publishing:
                _same_result(edit.job, result)
            else:
                self._keep(edit, result)
        return edit.job if edit.job.is_terminal else await self.publish(edit.job)

    async def fail(self, job_id: str, attempt: int, reason: FailureReason, message: str) -> Job:
        """Ends the attempt in an error; the job, FAILED, or QUEUED if it is tried again; CANCELLED or PAUSED if that
        was asked for. Raises StaleAttempt, WrongState if a result is recorded."""
        return await self._give_up(job_id, attempt, Ending(_CAUSES.get(reason, EndCause.FAILED), message, reason))

    async def release(self, job_id: str, attempt: int, cause: EndCause, message: str) -> Job:
        """Ends the attempt without a result; the job, QUEUED for another one, PAUSED or CANCELLED if that was asked
        for, FAILED if nothing is left of a budget. `cause` is one of `attempts.RELEASES`.

        Raises StaleAttempt, WrongState if a result is recorded or if nobody asked for the pause.
        """
        return await self._give_up(job_id, attempt, Ending(cause, message))

    async def cancel(self, job_id: str, attempt: int) -> Job:
        """The worker has stopped as it was told; the job, CANCELLED. Raises WrongState if nobody told it."""
        async with self._ledger.edit(job_id) as edit:
            if edit.job.is_terminal and edit.job.finished_attempt == attempt:
                return _not_succeeded(edit.job)
            edit.require_attempt(attempt)
            check_transition(edit.job.state, State.CANCELLED)
            self._end(edit, Ending(EndCause.CANCELLED))
        return edit.job

    async def _give_up(self, job_id: str, attempt: int, ending: Ending) -> Job:
        async with self._ledger.edit(job_id) as edit:
            if edit.job.finished_attempt == attempt:
                return _not_succeeded(edit.job)
            edit.require_attempt(attempt)
            _not_publishing(edit.job)
            if edit.job.state is State.CANCELLING:
                ending = replace(ending, cause=EndCause.CANCELLED)
            elif ending.cause is EndCause.PAUSED:
                check_transition(edit.job.state, State.PAUSED)
            elif edit.job.is_preempted and ending.cause is EndCause.PREEMPTED:
                ending = replace(ending, message=f"preempted by {edit.job.preempted_by}")
            self._end(edit, ending)
        return edit.job

    def _end(self, edit: Edit, ending: Ending) -> None:
        self._retries.end(edit, ending)
        edit.change(finished_attempt=edit.job.attempt)

    async def publish(self, job: Job) -> Job:
        """Steps 2 and 3 for a job whose result is recorded.

        The registry reads the graph through, which may take longer than a caller waits: the work goes on without the
        caller, and one that asks again joins it.
        """
        task = self._underway.get(job.id)
        if task is None:
            task = self._underway[job.id] = asyncio.create_task(self._publish(job))
            task.add_done_callback(lambda done: self._settle(job.id, done))
        return await asyncio.shield(task)

    def _settle(self, job_id: str, task: asyncio.Task[Job]) -> None:
        del self._underway[job_id]
        if not task.cancelled() and task.exception() is not None:
            log.info("publication did not end", job=job_id, reason=str(task.exception()))

    async def close(self) -> None:
        """Stops publishing; whoever runs next goes on."""
        tasks = list(self._underway.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _publish(self, job: Job) -> Job:
        try:
            version, refusal = await self._publisher.publish(job), ""
        except PublicationRefused as error:
            version, refusal = "", str(error)
        async with self._ledger.edit(job.id) as edit:
            if not edit.job.is_publishing:
                return edit.job  # somebody else came first with the same answer
            if version:
                edit.end_attempt(AttemptEnd(EndCause.SUCCEEDED))
                edit.enter(State.SUCCEEDED, model_version=version)
            else:
                message = f"the registry refused the result: {refusal}"
                edit.end_attempt(AttemptEnd(EndCause.FAILED, message))
                edit.enter(State.FAILED, failure_reason=FailureReason.INTERNAL, message=message)
            edit.change(finished_attempt=edit.job.attempt)
        return edit.job

    async def publish_stalled(self, limit: int = 20) -> int:
        """Publishes results whose worker no longer asks for it; how many."""
        return sum(await asyncio.gather(*map(self._publish_quietly, await self._stalled(limit))))

    async def _publish_quietly(self, job_id: str) -> bool:
        try:
            await self.publish(await self._ledger.get(job_id))
        except Unavailable as error:
            log.warning("publication waits", job=job_id, reason=error.message)
            return False
        except ModelyardError:
            log.exception("publication failed", job=job_id)
            return False
        return True

    async def _stalled(self, limit: int) -> list[str]:
        """Takes up to `limit` stalled publications for one lease's length, so that replicas do not do them twice."""
        stalled = (
            (jobs.c.state == State.PUBLISHING) & jobs.c.artifact.is_not(None) & (jobs.c.lease_until < now_us())
        )  # fmt: skip
        oldest = select(jobs.c.id).where(stalled).order_by(jobs.c.lease_until).limit(limit)
        statement = (
            update(jobs)
            .where(jobs.c.id.in_(chosen_once(oldest)))
            .values(lease_until=now_us() + self._lease_us)
            .returning(jobs.c.id)
        )
        async with self._ledger.database.write() as connection:
            return list((await connection.execute(statement)).scalars())

    def _keep(self, edit: Edit, result: Result) -> None:
        """Step 1: from here on the job is published or refused, by whoever gets to it."""
        if edit.job.evaluation is None and result.evaluation is not None:
            edit.change(evaluation=result.evaluation)
            edit.tell(Document(Kind.EVALUATION, result.evaluation))
        if edit.job.state is not State.PUBLISHING:
            edit.enter(State.PUBLISHING)
        edit.change(
            artifact=result.artifact, artifact_digest=result.digest, lease_until=edit.now + self._lease_us
        )  # fmt: skip


def _same_result(job: Job, result: Result) -> Job:
    if job.state is not State.CANCELLED and job.artifact_digest != result.digest:
        known = job.artifact_digest or "none"
        raise WrongState(f"the attempt has ended with another result: {known}", metadata={"state": job.state})
    return job


def _not_succeeded(job: Job) -> Job:
    if job.state is State.SUCCEEDED:
        raise WrongState(f"{job.name} has succeeded", metadata={"state": job.state})
    return job


def _not_publishing(job: Job) -> None:
    if job.is_publishing:
        raise WrongState(f"the result of {job.name} is recorded and being published", metadata={"state": job.state})
