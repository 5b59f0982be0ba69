"""What becomes of a job whose attempt has ended without a result: tried again, put aside, or over. One place decides.

An attempt ends by one of three kinds of cause, each with a budget of its own:

- by the platform's fault: the job is tried again up to a setting, at once for the first time, then later and later;
- because its place was wanted: always tried again, at once;
- by the job's own fault: tried again as often as the user asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from .attempts import INFRASTRUCTURE, PREEMPTION, EndCause
from .events import AttemptEnd
from .jobs import FailureReason, Job, State
from .ledger import Edit

OWN_FAULTS = frozenset({
    FailureReason.USER_CODE, FailureReason.DATA, FailureReason.OUT_OF_MEMORY, FailureReason.DIVERGED,
})  # fmt: skip
"""Failures that `Scheduling.max_retries` is about. The others would only come again."""

_MAX_DELAY_US = 300_000_000


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended."""

    cause: EndCause
    message: str = ""
    reason: FailureReason | None = None
    """Why it failed; for FAILED and DEADLINE, and for a WORKER_FAULT that the worker reported as a failure."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the job."""

    failure: FailureReason | None = None
    """Why it is over; None: it is tried again."""
    delay_us: int = 0
    """How long to wait before that."""
    message: str = ""


class Retries:
    """Ends attempts that have no result."""

    def __init__(self, *, infrastructure_retries: int, delay_s: float) -> None:
        """`delay_s`: the wait before the first retry that waits at all; it doubles with each further one."""
        self._infrastructure_retries = infrastructure_retries
        self._delay_us = round(delay_s * 1e6)

    def end(self, edit: Edit, ending: Ending, *, ring: bool = True) -> None:
        """Ends the attempt that holds the job and moves the job on, with a doorbell if it is queued again.

        `ring` False: the caller claims it right away; only a job that has to wait is rung for.
        """
        state = edit.job.state
        _count(edit, ending)
        if state is State.CANCELLING:
            edit.end_attempt(AttemptEnd(ending.cause, ending.message))
            edit.enter(State.CANCELLED, message=ending.message)
            return
        verdict = self._judge(edit, ending)
        if verdict.failure is not None:
            edit.end_attempt(AttemptEnd(ending.cause, ending.message))
            edit.enter(State.FAILED, failure_reason=verdict.failure, message=verdict.message)
            return
        if ending.cause not in INFRASTRUCTURE | PREEMPTION:
            edit.change(user_retries=edit.job.user_retries + 1)
        if state is State.PAUSING:
            edit.end_attempt(AttemptEnd(ending.cause, ending.message, retried=True))
            edit.enter(State.PAUSED, message=ending.message)
        else:
            _queue_again(edit, ending, verdict.delay_us, ring=ring)

    def _judge(self, edit: Edit, ending: Ending) -> Verdict:
        verdict = self._judge_cause(edit.job, ending)
        limit = edit.job.max_run_time
        if verdict.failure is None and limit is not None and edit.run_time >= limit:
            return Verdict(FailureReason.DEADLINE, message=over_time(limit))
        return verdict

    def _judge_cause(self, job: Job, ending: Ending) -> Verdict:
        if ending.cause in PREEMPTION:
            return Verdict()
        if ending.cause in INFRASTRUCTURE:
            return self._judge_infrastructure(job, ending)
        if ending.reason in OWN_FAULTS and job.user_retries < job.max_retries:
            return Verdict(delay_us=self._backoff_us(job.user_retries))
        return Verdict(ending.reason or FailureReason.INTERNAL, message=ending.message)

    def _judge_infrastructure(self, job: Job, ending: Ending) -> Verdict:
        ends = job.infrastructure_retries
        if ends <= self._infrastructure_retries:
            return Verdict(delay_us=self._backoff_us(ends - 2) if ends > 1 else 0)
        if ending.cause is EndCause.WORKER_FAULT:
            return Verdict(FailureReason.INTERNAL, message=f"{ending.message} (after {ends - 1} retries)")
        if job.suspect_attempts == job.attempt > 1:  # a worker lost before it began to work cannot be the job's doing
            message = f"each of {job.attempt} attempts lost its worker while it worked on the job"
            return Verdict(FailureReason.POISON, message=message)
        return Verdict(
            FailureReason.LOST_WORKER, message=f"the worker stopped reporting, and none of {ends - 1} retries is left"
        )

    def _backoff_us(self, earlier: int) -> int:
        """How long to wait when there were so many waits before."""
        return min(self._delay_us << min(earlier, 16), _MAX_DELAY_US)


def over_time(limit_us: int) -> str:
    """What is said of a job whose time to run is over."""
    return f"its attempts have held workers for longer than the {limit_us / 1e6:g} s that it may run"


def _queue_again(edit: Edit, ending: Ending, delay_us: int, *, ring: bool) -> None:
    retry_time = edit.now + delay_us if delay_us else None
    edit.end_attempt(AttemptEnd(ending.cause, ending.message, retried=True, retry_time=retry_time))
    edit.enter(State.QUEUED, message=ending.message)
    edit.change(retry_time=retry_time)
    if ending.cause is EndCause.PREEMPTED:
        edit.go_behind()
    if ring or retry_time is not None:
        edit.ring()
    else:
        edit.change(rung_time=edit.now)  # should the caller die first, the reconciler finds it


def _count(edit: Edit, ending: Ending) -> None:
    job = edit.job
    if ending.cause in INFRASTRUCTURE:
        edit.change(infrastructure_retries=job.infrastructure_retries + 1)
    if ending.cause in PREEMPTION:
        edit.change(preemptions=job.preemptions + 1)
    if ending.cause is EndCause.WORKER_LOST and job.state is not State.LEASED:
        edit.change(suspect_attempts=job.suspect_attempts + 1)
