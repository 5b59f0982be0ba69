"""A training job: its states, the table of moves between them, and the record of one job.

The documents in a record (spec, progress, evaluation, artifact) are bytes that the domain keeps and hands back as they
came; only `converters` reads them. What the domain decides by stands in fields of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique

from modelyard.core.doorbell import DEFAULT_QUEUE
from modelyard.core.errors import WrongState

from .checkpoints import Checkpoint


@unique
class State(StrEnum):
    """Where a job is; the names are those of `TrainingJob.State`."""

    QUEUED = "QUEUED"
    LEASED = "LEASED"
    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    EVALUATING = "EVALUATING"
    EXPORTING = "EXPORTING"
    PUBLISHING = "PUBLISHING"
    SUCCEEDED = "SUCCEEDED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"


@unique
class FailureReason(StrEnum):
    """Why a job failed; the names are those of `TrainingJob.FailureReason`."""

    USER_CODE = "USER_CODE"
    DATA = "DATA"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DIVERGED = "DIVERGED"
    GATE_REJECTED = "GATE_REJECTED"
    PARITY_FAILED = "PARITY_FAILED"
    DEADLINE = "DEADLINE"
    QUEUE_EXPIRED = "QUEUE_EXPIRED"
    LOST_WORKER = "LOST_WORKER"
    POISON = "POISON"
    INTERNAL = "INTERNAL"


TERMINAL = frozenset({State.SUCCEEDED, State.CANCELLED, State.FAILED})
"""A job that is here never moves again."""

REPORTABLE = frozenset({State.PREPARING, State.RUNNING, State.EVALUATING, State.EXPORTING, State.PUBLISHING})
"""What a worker may say that it has entered."""

STOPPING = frozenset({State.CANCELLING, State.PAUSING})
"""Somebody wants the attempt to stop; what its worker enters meanwhile does not show."""

HELD = frozenset({State.LEASED, *REPORTABLE, *STOPPING})
"""An attempt holds the job: the row has a lease."""

_LET_GO = frozenset({State.QUEUED, State.CANCELLING, State.PAUSING, State.FAILED})
"""From every working state: the attempt ended and another one follows, somebody cancels or pauses, the job failed."""

TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.LEASED, State.CANCELLED, State.FAILED, State.PAUSED}),
    # A worker may skip steps forward, since a resumed attempt finds some of them done; it never goes back.
    State.LEASED: REPORTABLE | _LET_GO,
    State.PREPARING: REPORTABLE - {State.PREPARING} | _LET_GO,
    State.RUNNING: frozenset({State.EVALUATING, State.EXPORTING, State.PUBLISHING}) | _LET_GO,
    State.EVALUATING: frozenset({State.EXPORTING, State.PUBLISHING}) | _LET_GO,
    State.EXPORTING: frozenset({State.PUBLISHING}) | _LET_GO,
    State.PUBLISHING: frozenset({State.SUCCEEDED}) | _LET_GO,
    # Whatever comes after the wish to cancel, the job ends CANCELLED: nothing has been published.
    State.CANCELLING: frozenset({State.CANCELLED}),
    # A result that comes after the wish to pause is worth more than the pause.
    State.PAUSING: frozenset({State.PAUSED, State.CANCELLING, State.PUBLISHING, State.FAILED}),
    State.PAUSED: frozenset({State.QUEUED, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.CANCELLED: frozenset(),
    State.FAILED: frozenset(),
}
"""Every move that a job can make. What is not here raises WrongState and changes nothing."""


def check_transition(before: State, after: State) -> None:
    """Raises WrongState unless the table allows the move."""
    if after not in TRANSITIONS[before]:
        raise WrongState(f"a job that is {before} cannot become {after}", metadata={"state": before})


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job as its row says. Times are microseconds since 1970 by the database's clock."""

    id: str
    tenant: str
    creator: str
    display_name: str
    labels: dict[str, str]
    model: str
    """Id of the model that the result becomes a version of."""
    alias: str
    """The alias that moves to the new version; empty: none."""
    dataset: str
    """Id of the dataset."""
    dataset_digest: str
    spec: bytes = field(repr=False)
    spec_digest: str
    parameter_count: int

    state: State = State.QUEUED
    failure_reason: FailureReason | None = None
    failure_message: str = ""
    attempt: int = 0
    """How often the job has been claimed: the fencing token."""
    suspect_attempts: int = 0
    """Attempts whose worker was lost after it had begun to work on the job."""
    finished_attempt: int = 0
    """The newest attempt that ended by its own finish; 0 if none has."""
    worker: str = ""
    node: str = ""
    """The machine of that worker."""
    lease_until: int | None = None
    """When the lease of the current attempt runs out; None if no attempt holds the job."""
    claim_time: int | None = None
    """When the current attempt was claimed; None if no attempt holds the job."""
    run_until: int | None = None
    """When the job's time to run is over; None if it has no limit or no attempt holds it."""
    run_time: int = 0
    """How long the attempts that have ended held workers, in microseconds."""
    max_run_time: int | None = None
    """For how long attempts may hold workers in sum, in microseconds; None: no limit."""
    max_retries: int = 0
    """How often a failure of the job's own is tried again."""
    infrastructure_retries: int = 0
    """Attempts that ended by a fault of the platform."""
    preemptions: int = 0
    """Attempts that ended because the place was wanted for something else."""
    user_retries: int = 0
    """Attempts that ended by the job's own fault and were tried again."""
    retry_time: int | None = None
    """A queued job is not given to a worker before this."""
    updates_received: int = 0
    """How many updates of the current attempt are recorded."""
    progress: bytes | None = field(default=None, repr=False)
    progress_count: int = 0
    """How many progress events there are, over all attempts."""
    progress_sequence: int = 0
    """Sequence number of the newest of them."""
    checkpoint: Checkpoint | None = None
    """The newest one; kept over attempts."""
    checkpoint_step: int = 0
    """Its step; 0 if there is none."""
    evaluation: bytes | None = field(default=None, repr=False)
    artifact: bytes | None = field(default=None, repr=False)
    """What the attempt has uploaded. Once this is set nobody else is given the job."""
    artifact_digest: str = ""
    model_version: str = ""
    """Resource name of the published version."""
    cancel_request_id: str = ""
    pause_request_id: str = ""
    resume_request_id: str = ""
    preempt_request_id: str = ""
    preempted_attempt: int = 0
    """The attempt that somebody wanted to preempt; 0: none yet."""
    preempted_by: str = ""
    queue: str = DEFAULT_QUEUE
    """The class of workers that may take the job."""
    precedence: int = 0
    """The priority, negated: of one tenant's jobs the one with the lower goes first."""
    max_queue_time: int | None = None
    """For how long the job may wait in one go, in microseconds; None: for ever."""
    queued_time: int | None = None
    """When the present wait began; None unless QUEUED."""
    expire_time: int | None = None
    """When it will have waited too long; None if it has no limit or does not wait."""
    place_time: int = 0
    """Its place among jobs of equal priority: the time of its submission, or when it was sent to the back since."""
    rung_time: int | None = None
    """When a doorbell was last asked for; None unless QUEUED."""
    last_sequence: int = 0
    """Sequence number of the newest event."""
    revision: int = 0
    """Counts the changes of the row."""
    create_time: int = 0
    update_time: int = 0
    start_time: int | None = None
    finish_time: int | None = None

    @property
    def name(self) -> str:
        """The resource name."""
        return job_name(self.id)

    @property
    def priority(self) -> int:
        """Among the waiting jobs of one tenant those of higher priority go first."""
        return -self.precedence

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self.state in TERMINAL

    @property
    def is_preempted(self) -> bool:
        """Whether the current attempt is to make room."""
        return self.preempted_attempt == self.attempt > 0

    @property
    def is_publishing(self) -> bool:
        """Whether the result is recorded and the gateway is publishing it: nothing but the registry can stop that."""
        return self.state is State.PUBLISHING and self.artifact is not None


def job_name(job_id: str) -> str:
    """The resource name of the job with this id."""
    return f"trainingJobs/{job_id}"
