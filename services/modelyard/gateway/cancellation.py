"""A user asks a job to stop."""

from __future__ import annotations

from modelyard.core.errors import WrongState

from .jobs import HELD, Job, State
from .ledger import Ledger


class Cancellation:
    """Cancels jobs: queued and paused ones at once, held ones by asking the worker at its next report."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def cancel(self, job_id: str, *, tenant: str | None, subject: str, request_id: str = "") -> Job:
        """The job, CANCELLED or CANCELLING.

        Raises WrongState if it has ended (unless it was this request that ended it) or if its result is recorded: the
        version may exist by now.
        """
        async with self._ledger.edit(job_id, tenant=tenant) as edit:
            job = edit.job
            if job.state is State.CANCELLING or _is_repeated(job, request_id):
                return job
            if job.is_terminal:
                raise WrongState(f"{job.name} has ended: {job.state}", metadata={"state": job.state})
            if job.is_publishing:
                raise WrongState(f"the result of {job.name} is being published", metadata={"state": job.state})
            edit.change(cancel_request_id=request_id)
            after = State.CANCELLING if job.state in HELD else State.CANCELLED
            edit.enter(after, message=f"cancelled by {subject}")
        return edit.job


def _is_repeated(job: Job, request_id: str) -> bool:
    return bool(request_id) and job.state is State.CANCELLED and job.cancel_request_id == request_id
