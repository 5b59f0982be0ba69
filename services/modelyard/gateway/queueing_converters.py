"""Between the wire and the domain, for what is about waiting: see `converters`."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from modelyard.core.errors import InvalidFields, Violations
from modelyard.core.names import TRAINING_JOB, shorten
from modelyard.v1 import access_service_pb2, training_job_pb2, training_service_pb2, worker_service_pb2

from .explanations import Explanation, Kind
from .jobs import Job, job_name
from .presence import MAX_HARDWARE, MAX_QUEUES, Presence, Worker, WorkerState
from .queues import QueueStatus
from .scheduling import MAX_PRIORITY, MAX_RETRIES, MAX_TIME_S, MIN_TIME_S, Queues, Scheduling
from .tenants import Tenant
from .times import to_duration, to_microseconds, to_timestamp

_PATH = "training_job.scheduling"
_WorkerPb = training_service_pb2.Worker
_WORKER_STATES = {state: _WorkerPb.State.Value(f"STATE_{state}") for state in WorkerState}
_WORKER_STATES_BACK = {number: state for state, number in _WORKER_STATES.items()}
_ExplanationPb = training_service_pb2.TrainingJobExplanation
_KINDS = {kind: _ExplanationPb.WaitReason.Kind.Value(f"KIND_{kind}") for kind in Kind}
_BOUNDS = ("weight", "max_running_jobs", "max_waiting_jobs")


def from_scheduling(message: training_job_pb2.Scheduling, queues: Queues, violations: Violations) -> Scheduling:
    """What was asked for, with the defaults filled in; notes what is wrong."""
    queue = message.queue or queues.default
    known = ", ".join(queues.names)
    violations.check(
        queue in queues.names, f"{_PATH}.queue", f"expected one of the queues {known}; got {shorten(queue)!r}"
    )
    violations.check(
        abs(message.priority) <= MAX_PRIORITY,
        f"{_PATH}.priority",
        f"expected -{MAX_PRIORITY} to {MAX_PRIORITY}, got {message.priority}",
    )
    violations.check(
        0 <= message.max_retries <= MAX_RETRIES,
        f"{_PATH}.max_retries",
        f"expected 0 to {MAX_RETRIES}, got {message.max_retries}",
    )
    return Scheduling(
        queue=queue,
        priority=message.priority,
        max_queue_time=_limit(message, "max_queue_time", violations),
        max_run_time=_limit(message, "max_run_time", violations),
        max_retries=message.max_retries,
    )


def _limit(message: training_job_pb2.Scheduling, name: str, violations: Violations) -> int | None:
    """A time in microseconds; None if it is not set."""
    if not message.HasField(name):  # type: ignore[arg-type]  # one of its fields
        return None
    duration: Duration = getattr(message, name)
    seconds = duration.seconds + duration.nanos / 1e9
    violations.check(
        MIN_TIME_S <= seconds <= MAX_TIME_S,
        f"{_PATH}.{name}",
        f"expected 1 second to 366 days ({MAX_TIME_S:.0f} s), got {seconds:g} s",
    )
    return to_microseconds(duration)


def to_scheduling(job: Job) -> training_job_pb2.Scheduling:
    """What the job was submitted with."""
    return training_job_pb2.Scheduling(
        queue=job.queue,
        priority=job.priority,
        max_queue_time=None if job.max_queue_time is None else to_duration(job.max_queue_time / 1e6),
        max_run_time=None if job.max_run_time is None else to_duration(job.max_run_time / 1e6),
        max_retries=job.max_retries,
    )


def to_queue(status: QueueStatus) -> training_service_pb2.Queue:
    """A queue as callers see it."""
    return training_service_pb2.Queue(
        name=f"queues/{status.name}",
        waiting=status.waiting,
        running=status.running,
        workers=status.workers,
        idle_workers=status.idle_workers,
        max_running=status.max_running,
    )


def from_presence(request: worker_service_pb2.ReportWorkerRequest) -> Presence:
    """What a worker says of itself; raises InvalidFields."""
    violations = Violations()
    _check_text(request.worker, "worker", violations)
    node = request.node or request.worker.rpartition("/")[0] or request.worker
    _check_text(node, "node", violations)
    violations.check(
        len(request.queues) <= MAX_QUEUES and all(0 < len(queue) <= 63 for queue in request.queues),
        "queues",
        f"expected at most {MAX_QUEUES} names of 1 to 63 characters",
    )
    known = ", ".join(f"STATE_{state}" for state in WorkerState)
    violations.check(request.state in _WORKER_STATES_BACK, "state", f"expected one of {known}; got {request.state}")
    violations.raise_if_any()
    return Presence(
        worker=request.worker,
        node=node,
        queues=tuple(request.queues),
        state=_WORKER_STATES_BACK[request.state],
        job_id=TRAINING_JOB.parse(request.training_job, "training_job")["training_job"] if request.training_job else "",
        hardware=request.hardware[:MAX_HARDWARE].replace("\0", "\N{REPLACEMENT CHARACTER}"),
    )


def to_worker(worker: Worker) -> training_service_pb2.Worker:
    """A worker as callers see it."""
    said = worker.presence
    return _WorkerPb(
        worker=said.worker,
        node=said.node,
        queues=said.queues,
        state=_WORKER_STATES[said.state],
        training_job=job_name(said.job_id) if said.job_id else "",
        hardware=said.hardware,
        start_time=to_timestamp(worker.start_time),
        report_time=to_timestamp(worker.report_time),
        excluded_until=None if worker.excluded_until is None else to_timestamp(worker.excluded_until),
    )


def to_explanation(
    explanation: Explanation, training_job: training_job_pb2.TrainingJob
) -> training_service_pb2.TrainingJobExplanation:
    """Why a job waits; `training_job` is its job, converted."""
    start_time = explanation.start_time
    return _ExplanationPb(
        training_job=training_job,
        reasons=[
            _ExplanationPb.WaitReason(kind=_KINDS[reason.kind], message=reason.message)
            for reason in explanation.reasons
        ],
        jobs_ahead=explanation.ahead,
        tenant_jobs_ahead=explanation.tenant_ahead,
        estimated_start_time=None if start_time is None else to_timestamp(start_time),
        waited=to_duration(explanation.waited_us / 1e6),
    )


def remaining_s(progress: bytes) -> float | None:
    """See `explanations.Remaining`."""
    message = training_job_pb2.TrainingProgress.FromString(progress)
    return message.remaining.ToNanoseconds() / 1e9 if message.HasField("remaining") else None


def to_tenant(tenant: Tenant) -> access_service_pb2.Tenant:
    """A tenant as callers see it."""
    return access_service_pb2.Tenant(
        name=f"tenants/{tenant.id}",
        weight=tenant.bounds.weight,
        max_running_jobs=tenant.bounds.max_running_jobs,
        max_waiting_jobs=tenant.bounds.max_waiting_jobs,
        running_jobs=tenant.running_jobs,
        waiting_jobs=tenant.waiting_jobs,
        etag=str(tenant.revision),
    )


def from_tenant(tenant: access_service_pb2.Tenant, mask: FieldMask) -> dict[str, float]:
    """What is to be changed; raises InvalidFields for a mask with anything else."""
    unknown = [path for path in mask.paths if path not in _BOUNDS]
    if unknown:
        expected = ", ".join(_BOUNDS)
        raise InvalidFields.one("update_mask", f"expected some of {expected}; got {shorten(unknown[0])!r}")
    return {name: getattr(tenant, name) for name in mask.paths or _BOUNDS}


def _check_text(text: str, path: str, violations: Violations) -> None:
    violations.check(
        1 <= len(text) <= 200 and text.isprintable(),
        path,
        f"expected 1 to 200 printable characters, got {shorten(text)!r}",
    )
