"""Between the wire and the domain: the only module that knows both, with `attempt_converters` and `queueing_converters`
beside it (and with `registry`, `planning` and the servicers, which only hand over what these have made)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from modelyard.core.errors import InvalidFields, Violations
from modelyard.core.names import check_digest, check_request_id, shorten
from modelyard.v1 import (
    dataset_pb2,
    model_pb2,
    model_service_pb2,
    training_job_pb2,
    training_service_pb2,
    training_spec_pb2,
    worker_service_pb2,
)

from .attempt_converters import from_checkpoint, to_attempt_end, to_attempt_start, to_checkpoint
from .checkpoints import Checkpoint
from .claims import Asker, Claim
from .events import AttemptEnd, AttemptStart, Document, Event, Kind, LogLine, StateChange
from .finishing import Result
from .jobs import REPORTABLE, FailureReason, Job, State
from .queueing_converters import from_scheduling, to_scheduling
from .reports import Directive, Receipt, Update
from .scheduling import Queues
from .submission import Submission
from .times import to_duration, to_timestamp

MAX_DISPLAY_NAME = 200
MAX_LABELS = 64
MAX_LABEL_KEY = 63
MAX_LABEL_VALUE = 200
MAX_TEXT = 4096
MAX_UPDATES = 1000
MAX_WORKER = 200

_T = TypeVar("_T")
_N = TypeVar("_N")
_Pb = training_job_pb2.TrainingJob
_STATES = {state: _Pb.State.Value(f"STATE_{state}") for state in State}
_REASONS = {reason: _Pb.FailureReason.Value(f"FAILURE_REASON_{reason}") for reason in FailureReason}
_STATES_BACK = {number: state for state, number in _STATES.items()}
_REPORTABLE_BACK = {_STATES[state]: state for state in State if state in REPORTABLE}
_REASONS_BACK = {number: reason for reason, number in _REASONS.items()}
_DIRECTIVES = {
    Directive.CONTINUE: worker_service_pb2.ReportTrainingJobResponse.DIRECTIVE_CONTINUE,
    Directive.CANCEL: worker_service_pb2.ReportTrainingJobResponse.DIRECTIVE_CANCEL,
    Directive.PAUSE: worker_service_pb2.ReportTrainingJobResponse.DIRECTIVE_PAUSE,
    Directive.PREEMPT: worker_service_pb2.ReportTrainingJobResponse.DIRECTIVE_PREEMPT,
    Directive.DEADLINE: worker_service_pb2.ReportTrainingJobResponse.DIRECTIVE_DEADLINE,
}


def to_training_job(job: Job) -> training_job_pb2.TrainingJob:
    """The whole job as callers see it."""
    message = _Pb(
        name=job.name if job.id else "",
        display_name=job.display_name,
        labels=job.labels,
        spec=training_spec_pb2.TrainingSpec.FromString(job.spec),
        spec_digest=job.spec_digest,
        state=_STATES[job.state],
        failure_reason=_REASONS[job.failure_reason] if job.failure_reason else _Pb.FAILURE_REASON_UNSPECIFIED,
        failure_message=job.failure_message,
        attempt=job.attempt,
        worker=job.worker,
        model_version=job.model_version,
        dataset_digest=job.dataset_digest,
        parameter_count=job.parameter_count,
        tenant=job.tenant,
        creator=job.creator,
        infrastructure_retries=job.infrastructure_retries,
        preemptions=job.preemptions,
        user_retries=job.user_retries,
        etag=str(job.revision),
        last_sequence=job.last_sequence,
    )
    message.scheduling.CopyFrom(to_scheduling(job))
    if job.progress is not None:
        message.progress.ParseFromString(job.progress)
    if job.evaluation is not None:
        message.evaluation.ParseFromString(job.evaluation)
    if job.checkpoint is not None:
        message.checkpoint.CopyFrom(to_checkpoint(job.checkpoint))
    for field in ("create_time", "update_time", "start_time", "finish_time", "retry_time"):
        time = getattr(job, field)
        if time:
            getattr(message, field).CopyFrom(to_timestamp(time))
    return message


def to_event(event: Event) -> training_job_pb2.TrainingJobEvent:
    """One entry of a job's history."""
    message = training_job_pb2.TrainingJobEvent(
        sequence=event.sequence, time=to_timestamp(event.time), attempt=event.attempt
    )
    match event.payload:
        case StateChange() as change:
            message.state_change.state = _STATES[change.state]
            message.state_change.message = change.message
            message.state_change.model_version = change.model_version
            if change.previous_state:
                message.state_change.previous_state = _STATES[change.previous_state]
            if change.failure_reason:
                message.state_change.failure_reason = _REASONS[change.failure_reason]
        case LogLine(text):
            message.log_line.text = text
        case Checkpoint() as checkpoint:
            message.checkpoint.CopyFrom(to_checkpoint(checkpoint))
        case AttemptStart() as start:
            message.attempt_start.CopyFrom(to_attempt_start(start))
        case AttemptEnd() as end:
            message.attempt_end.CopyFrom(to_attempt_end(end))
        case Document(Kind.PROGRESS, body):
            message.progress.ParseFromString(body)
        case Document(_, body):
            message.evaluation.ParseFromString(body)
    return message


def from_create_request(request: training_service_pb2.CreateTrainingJobRequest, queues: Queues) -> Submission:
    """What was submitted; raises InvalidFields for everything but the spec, which the planner checks."""
    job = request.training_job
    violations = Violations()
    _check_display_name(job.display_name, violations)
    _check_labels(job.labels, violations)
    _check_request_id(request.request_id, violations)
    scheduling = from_scheduling(job.scheduling, queues, violations)
    violations.raise_if_any()
    content = _Pb(display_name=job.display_name, labels=job.labels, spec=job.spec)
    if job.HasField("scheduling"):
        content.scheduling.CopyFrom(job.scheduling)
    return Submission(
        display_name=job.display_name,
        labels=dict(job.labels),
        spec=job.spec.SerializeToString(deterministic=True),
        scheduling=scheduling,
        request_id=request.request_id,
        content_digest=hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest(),
    )


def from_states(states: Iterable[_Pb.State.ValueType]) -> set[State]:
    """States to filter by."""
    return {_known(_STATES_BACK, number, f"states[{index}]") for index, number in enumerate(states)}


def to_claim(
    claim: Claim | None, lease_s: float, report_interval_s: float
) -> worker_service_pb2.ClaimTrainingJobResponse:
    """The answer to a doorbell."""
    if claim is None:
        return worker_service_pb2.ClaimTrainingJobResponse(claimed=False)
    return worker_service_pb2.ClaimTrainingJobResponse(
        claimed=True,
        training_job=to_training_job(claim.job),
        dataset=dataset_pb2.Dataset.FromString(claim.dataset),
        lease_duration=to_duration(lease_s),
        report_interval=to_duration(report_interval_s),
    )


def from_asker(request: worker_service_pb2.ClaimTrainingJobRequest) -> Asker:
    """Who comes for a job; raises InvalidFields."""
    node = request.node or request.worker.rpartition("/")[0] or request.worker
    for path, text in (("worker", request.worker), ("node", node)):
        if not (1 <= len(text) <= MAX_WORKER and text.isprintable()):
            raise InvalidFields.one(path, f"expected 1 to {MAX_WORKER} printable characters, got {shorten(text)!r}")
    return Asker(request.worker, node)


def from_report(request: worker_service_pb2.ReportTrainingJobRequest) -> list[Update]:
    """The updates; raises InvalidFields."""
    if len(request.updates) > MAX_UPDATES:
        raise InvalidFields.one("updates", f"expected at most {MAX_UPDATES}, got {len(request.updates)}")
    return [_from_update(update, f"updates[{index}]") for index, update in enumerate(request.updates)]


def to_receipt(receipt: Receipt, lease_s: float) -> worker_service_pb2.ReportTrainingJobResponse:
    """The answer to a report."""
    return worker_service_pb2.ReportTrainingJobResponse(
        directive=_DIRECTIVES[receipt.directive],
        lease_duration=to_duration(lease_s),
        updates_received=receipt.updates_received,
    )


def from_artifact(artifact: worker_service_pb2.TrainedArtifact) -> Result:
    """An uploaded result; raises InvalidFields."""
    check_digest(artifact.digest, "succeeded.digest")
    if artifact.size_bytes < 1:
        raise InvalidFields.one("succeeded.size_bytes", f"expected 1 or more, got {artifact.size_bytes}")
    return Result(
        digest=artifact.digest,
        artifact=artifact.SerializeToString(deterministic=True),
        evaluation=artifact.evaluation.SerializeToString() if artifact.HasField("evaluation") else None,
    )


def from_failure(failure: worker_service_pb2.TrainingFailure) -> tuple[FailureReason, str]:
    """Reason and message, the message cut to its limit; raises InvalidFields."""
    return _known(_REASONS_BACK, failure.reason, "failed.reason"), cut_text(failure.message)


def version_request(job: Job) -> model_service_pb2.CreateModelVersionRequest:
    """Asks the registry to make the recorded result a version: the same request at every call."""
    artifact = worker_service_pb2.TrainedArtifact.FromString(job.artifact or b"")
    version = model_pb2.ModelVersion(
        digest=artifact.digest,
        training_job=job.name,
        dataset=f"datasets/{job.dataset}",
        dataset_digest=job.dataset_digest,
        spec_digest=job.spec_digest,
        library_versions=artifact.library_versions,
        evaluation=artifact.evaluation if artifact.HasField("evaluation") else None,
        parity=artifact.parity if artifact.HasField("parity") else None,
    )
    return model_service_pb2.CreateModelVersionRequest(
        parent=f"models/{job.model}", model_version=version, request_id=job.id, alias=job.alias
    )


def _from_update(update: worker_service_pb2.TrainingUpdate, path: str) -> Update:
    match update.WhichOneof("payload"):
        case "state":
            return _known(_REPORTABLE_BACK, update.state, f"{path}.state")
        case "progress":
            return Document(Kind.PROGRESS, update.progress.SerializeToString())
        case "evaluation":
            return Document(Kind.EVALUATION, update.evaluation.SerializeToString())
        case "log_line":
            return LogLine(cut_text(update.log_line))
        case "checkpoint":
            return from_checkpoint(update.checkpoint, f"{path}.checkpoint")
        case _:
            raise InvalidFields.one(path, "expected exactly one of state, progress, log_line, evaluation, checkpoint")


def cut_text(text: str) -> str:
    """Cut to the limit. NUL becomes a replacement character: PostgreSQL's text cannot hold it."""
    return (text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _known(table: Mapping[_N, _T], number: _N, path: str) -> _T:
    """The domain's value for an enum number of the wire; raises InvalidFields."""
    value = table.get(number)
    if value is None:
        raise InvalidFields.one(path, f"expected one of {', '.join(map(str, table.values()))}; got {number}")
    return value


def _check_request_id(request_id: str, violations: Violations) -> None:
    try:
        check_request_id(request_id)
    except InvalidFields as error:
        violations.found.extend(error.violations)


def _check_display_name(name: str, violations: Violations) -> None:
    violations.check(
        len(name) <= MAX_DISPLAY_NAME and (not name or name.isprintable()),
        "training_job.display_name",
        f"expected at most {MAX_DISPLAY_NAME} printable characters, got {shorten(name)!r}",
    )


def _check_labels(labels: Mapping[str, str], violations: Violations) -> None:
    path = "training_job.labels"
    violations.check(len(labels) <= MAX_LABELS, path, f"expected at most {MAX_LABELS}, got {len(labels)}")
    for key, value in labels.items():
        violations.check(
            1 <= len(key) <= MAX_LABEL_KEY and key.isprintable(),
            path,
            f"expected keys of 1 to {MAX_LABEL_KEY} printable characters, got {shorten(key)!r}",
        )
        violations.check(
            len(value) <= MAX_LABEL_VALUE and (not value or value.isprintable()),
            f"{path}[{shorten(key)}]",
            f"expected at most {MAX_LABEL_VALUE} printable characters, got {shorten(value)!r}",
        )
