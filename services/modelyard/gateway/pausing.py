"""A user puts a job aside, to go on with it later; or takes its worker away for now."""

from __future__ import annotations

from modelyard.core.errors import WrongState

from .jobs import HELD, Job, State
from .ledger import Edit, Ledger


class Pausing:
    """Pauses, resumes and preempts jobs: those that a worker holds by asking it at its next report.

    Every call takes the job's `tenant` (None: any), who asks (`subject`) and a `request_id` that makes it repeatable:
    the job's newest request of a kind answers the job as it is now and changes nothing. All raise NotFound.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def pause(self, job_id: str, *, tenant: str | None, subject: str, request_id: str = "") -> Job:
        """The job, PAUSED or PAUSING. Raises WrongState if it has ended, is being cancelled, or its result is
        recorded."""
        async with self._ledger.edit(job_id, tenant=tenant) as edit:
            job = edit.job
            if job.state in {State.PAUSED, State.PAUSING} or _is_repeated(request_id, job.pause_request_id):
                return job
            _require_movable(job)
            edit.change(pause_request_id=request_id)
            after = State.PAUSED if job.state is State.QUEUED else State.PAUSING
            edit.enter(after, message=f"paused by {subject}")
        return edit.job

    async def resume(self, job_id: str, *, tenant: str | None, subject: str, request_id: str = "") -> Job:
        """The job, QUEUED, or as it is if it waits or runs. Raises WrongState for one that is neither."""
        async with self._ledger.edit(job_id, tenant=tenant) as edit:
            job = edit.job
            if _goes_on(job) or _is_repeated(request_id, job.resume_request_id):
                return job
            if job.state is State.PAUSING:
                raise WrongState(f"{job.name} is still being paused", retry_after=1, metadata={"state": job.state})
            if job.state is not State.PAUSED:
                raise WrongState(f"{job.name} is not paused: {job.state}", metadata={"state": job.state})
            edit.change(resume_request_id=request_id)
            _queue_behind(edit, f"resumed by {subject}")
        return edit.job

    async def preempt(self, job_id: str, *, tenant: str | None, subject: str, request_id: str = "") -> Job:
        """The job, whose worker will be told to make room. Raises WrongState unless a worker holds it and may go on."""
        async with self._ledger.edit(job_id, tenant=tenant) as edit:
            job = edit.job
            if _is_repeated(request_id, job.preempt_request_id):
                return job
            _require_movable(job)
            if job.state not in HELD or job.state is State.PAUSING:
                raise WrongState(f"no worker is at work on {job.name}: {job.state}", metadata={"state": job.state})
            if job.is_preempted:
                return job
            edit.change(preempt_request_id=request_id, preempted_attempt=job.attempt, preempted_by=subject)
        return edit.job


def _is_repeated(request_id: str, known: str) -> bool:
    return bool(request_id) and request_id == known


def _goes_on(job: Job) -> bool:
    return job.state is State.QUEUED or job.state in HELD - {State.PAUSING, State.CANCELLING}


def _require_movable(job: Job) -> None:
    if job.is_terminal:
        raise WrongState(f"{job.name} has ended: {job.state}", metadata={"state": job.state})
    if job.state is State.CANCELLING:
        raise WrongState(f"{job.name} is being cancelled", metadata={"state": job.state})
    if job.is_publishing:
        raise WrongState(f"the result of {job.name} is being published", metadata={"state": job.state})


def _queue_behind(edit: Edit, message: str) -> None:
    edit.enter(State.QUEUED, message=message)
    edit.go_behind()
    edit.ring()
