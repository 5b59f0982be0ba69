"""Between the wire and the domain for pods and promotions."""

from __future__ import annotations

import re
from typing import cast

from google.protobuf.duration_pb2 import Duration

from modelyard.core.errors import InvalidFields, Violations
from modelyard.core.names import MODEL, MODEL_ALIAS, MODEL_VERSION, check_id, check_request_id, shorten
from modelyard.v1 import model_pb2, model_service_pb2, pod_pb2, pod_service_pb2

from .field_checks import MAX_REASON, check_by, check_text
from .model_converters import to_alias
from .pods import Pod, PodReport, PodVersion
from .promotions import NewPromotion, Progress, Receipt
from .shadow_counts import ShadowCounts, ShadowTotals
from .wire import to_timestamp

DEFAULT_WAIT_S = 60.0
MAX_WAIT_S = 3600.0
_POD = re.compile(r"pods/([a-z][a-z0-9-]{0,62})")
_MAX_NAME = 200
_COUNTED = ("compared", "differing", "rows", "class_mismatches", "failed", "dropped")


def from_report(request: pod_service_pb2.ReportPodRequest) -> PodReport:
    """What the pod tells; raises InvalidFields."""
    message = request.pod
    name = _POD.fullmatch(message.name)
    if name is None:
        raise InvalidFields.one("pod.name", f"expected pods/ and an id, got {shorten(message.name)!r}")
    return PodReport(
        id=name[1],
        display_name=message.display_name[:_MAX_NAME],
        draining=message.state == pod_pb2.Pod.STATE_DRAINING,
        revision=max(0, message.revision),
        versions=[_from_version(version) for version in message.versions],
        shadows=[_from_shadow(report) for report in request.shadows],
        unchanged=request.unchanged,
    )


def _from_version(message: pod_pb2.PodVersion) -> PodVersion:
    model, number = _version_name(message.name, "pod.versions.name")
    return PodVersion(
        model_id=model,
        version=number,
        state=message.state,
        digest=message.digest[:64],
        load_us=message.load_time.ToMicroseconds(),
        reason=message.reason[:MAX_REASON],
        broken=message.broken,
        aliases=tuple(message.aliases),
    )


def _from_shadow(message: model_pb2.ShadowReport) -> ShadowTotals:
    parts = MODEL_ALIAS.parse(message.name, "shadows.name")
    counts = ShadowCounts(
        **{name: max(0, getattr(message, name)) for name in _COUNTED},
        max_absolute_difference=message.max_absolute_difference,
        max_relative_difference=message.max_relative_difference,
        last_error=message.last_error[:MAX_REASON],
    )
    return ShadowTotals(parts["model"], parts["alias"], message.version, message.shadow_version, counts)


def _version_name(name: str, field: str) -> tuple[str, int]:
    parts = MODEL_VERSION.parse(name, field)
    if not parts["version"].isdecimal():
        raise InvalidFields.one(field, f"expected the version's number, got {shorten(parts['version'])!r}")
    return parts["model"], int(parts["version"])


def to_report_response(lease_s: float, *, known: bool) -> pod_service_pb2.ReportPodResponse:
    """What the pod is told."""
    return pod_service_pb2.ReportPodResponse(lease=_to_duration(round(lease_s * 1e6)), unknown=not known)


def from_model_filter(model: str) -> str:
    """The model's id, or none; raises InvalidFields."""
    return MODEL.parse(model, "model")["model"] if model else ""


def to_pod(pod: Pod) -> pod_pb2.Pod:
    """A pod as callers see it."""
    return pod_pb2.Pod(
        name=f"pods/{pod.id}",
        display_name=pod.display_name,
        state=pod_pb2.Pod.STATE_DRAINING if pod.draining else pod_pb2.Pod.STATE_LIVE,
        revision=pod.revision,
        versions=[_to_version(version) for version in pod.versions],
        create_time=to_timestamp(pod.create_time),
        update_time=to_timestamp(pod.update_time),
        expire_time=to_timestamp(pod.lease_until),
    )


def _to_version(version: PodVersion) -> pod_pb2.PodVersion:
    return pod_pb2.PodVersion(
        name=f"models/{version.model_id}/versions/{version.version}",
        state=_to_state(version.state),
        digest=version.digest,
        load_time=_to_duration(version.load_us) if version.load_us else None,
        reason=version.reason,
        broken=version.broken,
        aliases=version.aliases,
    )


def from_promote(request: model_service_pb2.PromoteModelVersionRequest) -> NewPromotion:
    """What the caller asks; raises InvalidFields with everything that is wrong."""
    model, number = _version_name(request.name, "name")
    violations = Violations()
    check_by(violations, "request_id", request.request_id, check_request_id)
    check_text(violations, "reason", request.reason, MAX_REASON)
    if request.alias:
        check_by(violations, "alias", request.alias, check_id)
    wait_s = request.wait_timeout.ToNanoseconds() / 1e9 if request.HasField("wait_timeout") else DEFAULT_WAIT_S
    violations.check(0 <= wait_s <= MAX_WAIT_S, "wait_timeout", f"expected 0 to {MAX_WAIT_S:g} s, got {wait_s:g} s")
    violations.raise_if_any()
    return NewPromotion(
        model_id=model,
        version=number,
        alias=request.alias or "live",
        etag=request.etag,
        reason=request.reason,
        wait_s=wait_s,
        keep_when_broken=request.keep_when_broken,
        request_id=request.request_id,
    )


def to_progress(progress: Progress) -> model_service_pb2.PromoteModelVersionResponse:
    """How far a promotion is, for whoever watches it."""
    return model_service_pb2.PromoteModelVersionResponse(
        model_alias=to_alias(progress.alias),
        pods=[_to_receipt(receipt) for receipt in progress.receipts],
        served=progress.served,
    )


def _to_receipt(receipt: Receipt) -> model_service_pb2.PodReceipt:
    version = receipt.version
    return model_service_pb2.PodReceipt(
        pod=f"pods/{receipt.pod_id}",
        display_name=receipt.display_name,
        state=_to_state(version.state),
        digest=version.digest,
        load_time=_to_duration(version.load_us) if version.load_us else None,
        reason=version.reason,
    )


def _to_state(number: int) -> pod_pb2.PodVersion.State.ValueType:
    """A number of the enum; a pod of a newer release may know others."""
    return cast("pod_pb2.PodVersion.State.ValueType", number)


def _to_duration(microseconds: int) -> Duration:
    return Duration(seconds=microseconds // 1_000_000, nanos=microseconds % 1_000_000 * 1000)
