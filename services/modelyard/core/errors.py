"""The exceptions of the domain and the one table that says what each becomes on the wire.

Domain code raises these and knows nothing of gRPC. `to_status` translates at the edge (see `interceptors`): a
`google.rpc.Status` with `ErrorInfo` always, `BadRequest` for wrong fields and `RetryInfo` when trying again helps
(https://google.aip.dev/193). `RemoteError` is the way back: what a client raises for a status it received.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from modelyard.v1 import errors_pb2

DOMAIN = "modelyard"
DETAILS_TRAILER = "grpc-status-details-bin"
_MESSAGE_BYTES = 600
_VIOLATION_BYTES = 2_048
"""An error travels in HTTP/2 headers: the message twice (once with every byte above 127 as three), the details in
base64. Above 8 KiB in all, gRPC begins to refuse the whole answer."""
INTERNAL_TEXT = "internal error; the request id leads to the service's log"


class ModelyardError(Exception):
    """Base of every error that a caller is told about. The message is for people, `metadata` for programs."""

    def __init__(
        self, message: str, *, retry_after: float | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        """Seconds after which trying again may help; None if it will not."""
        self.metadata = dict(metadata or {})


def _cut(text: str) -> str:
    """`text`, or as much of it as an error's message may hold."""
    encoded = text.encode()
    return text if len(encoded) <= _MESSAGE_BYTES else encoded[:_MESSAGE_BYTES].decode(errors="ignore") + "…"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request."""

    field: str
    """Path from the request's root, as in `training_job.spec.network.layer_list.layers[2].linear.inputs`."""
    description: str
    """What was expected and what came."""


class InvalidFields(ModelyardError):
    """One or more fields are wrong."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        if not violations:
            raise ValueError("InvalidFields needs at least one violation")
        self.violations = tuple(violations)
        text = "; ".join(f"{violation.field}: {violation.description}" for violation in violations[:5])
        super().__init__(_cut(text))

    @classmethod
    def one(cls, path: str, description: str) -> InvalidFields:
        """For a single wrong field."""
        return cls([FieldViolation(path, description)])


@dataclass(slots=True)
class Violations:
    """Collects what is wrong with a request, so that the caller hears everything at once."""

    found: list[FieldViolation] = field(default_factory=list)

    def add(self, path: str, description: str) -> None:
        """Notes a wrong field."""
        self.found.append(FieldViolation(path, description))

    def check(self, condition: bool, path: str, description: str) -> bool:
        """Notes a wrong field unless `condition` holds; answers the condition."""
        if not condition:
            self.add(path, description)
        return condition

    def raise_if_any(self) -> None:
        """Raises InvalidFields if anything was noted."""
        if self.found:
            raise InvalidFields(self.found)


class MalformedContent(ModelyardError):
    """Bytes are not what they claim to be."""


class TooLarge(ModelyardError):
    """A message or blob is over the limit."""


class TokenMissing(ModelyardError):
    """No token, or not of the form `Bearer …`."""


class TokenInvalid(ModelyardError):
    """A token that this cluster did not sign."""


class TokenExpired(ModelyardError):
    """A token whose time is over."""


class PermissionDenied(ModelyardError):
    """A good token without the permission."""


class NotFound(ModelyardError):
    """No resource of that name."""

    @classmethod
    def resource(cls, name: str, how: str = "does not exist") -> NotFound:
        """For a resource name, as in `models/diabetes`; `how` it is not to be found follows it in the text."""
        return cls(f"{name} {how}", metadata={"resource": name})


class AlreadyExists(ModelyardError):
    """The id is taken by other content."""


class Conflict(ModelyardError):
    """Somebody else changed the resource first."""


class RequestIdReused(ModelyardError):
    """The request_id belongs to a request with other content."""


class DigestMismatch(ModelyardError):
    """Content whose SHA-256 is not the announced one."""


class OffsetMismatch(ModelyardError):
    """Upload bytes that do not continue where the stored ones end."""


class StaleAttempt(ModelyardError):
    """The fence: the attempt is no longer the job's current one."""


class WrongState(ModelyardError):
    """The resource's state does not allow the call."""


class ResourceExhausted(ModelyardError):
    """A queue or quota is full."""


class Unavailable(ModelyardError):
    """Loading, draining, stopping, or a service that is needed is away."""


class DeadlineExceeded(ModelyardError):
    """The caller's deadline passed first."""


class Unimplemented(ModelyardError):
    """The service does not offer this."""


class Cancelled(ModelyardError):
    """The caller cancelled."""


class VersionBroken(ModelyardError):
    """The promoted version cannot be served."""


class NotServedYet(ModelyardError):
    """Not every live pod serves the promoted version within the time that the caller gave."""


_Reason = errors_pb2.ErrorReason
_Code = grpc.StatusCode

STATUS_TABLE: dict[type[ModelyardError], tuple[grpc.StatusCode, errors_pb2.ErrorReason.ValueType]] = {
    InvalidFields: (_Code.INVALID_ARGUMENT, _Reason.ERROR_REASON_INVALID_FIELD),
    MalformedContent: (_Code.INVALID_ARGUMENT, _Reason.ERROR_REASON_MALFORMED_CONTENT),
    TooLarge: (_Code.RESOURCE_EXHAUSTED, _Reason.ERROR_REASON_TOO_LARGE),
    TokenMissing: (_Code.UNAUTHENTICATED, _Reason.ERROR_REASON_TOKEN_MISSING),
    TokenInvalid: (_Code.UNAUTHENTICATED, _Reason.ERROR_REASON_TOKEN_INVALID),
    TokenExpired: (_Code.UNAUTHENTICATED, _Reason.ERROR_REASON_TOKEN_EXPIRED),
    PermissionDenied: (_Code.PERMISSION_DENIED, _Reason.ERROR_REASON_PERMISSION_DENIED),
    NotFound: (_Code.NOT_FOUND, _Reason.ERROR_REASON_NOT_FOUND),
    AlreadyExists: (_Code.ALREADY_EXISTS, _Reason.ERROR_REASON_ALREADY_EXISTS),
    Conflict: (_Code.ABORTED, _Reason.ERROR_REASON_CONFLICT),
    RequestIdReused: (_Code.ALREADY_EXISTS, _Reason.ERROR_REASON_REQUEST_ID_REUSED),
    DigestMismatch: (_Code.DATA_LOSS, _Reason.ERROR_REASON_DIGEST_MISMATCH),
    OffsetMismatch: (_Code.OUT_OF_RANGE, _Reason.ERROR_REASON_OFFSET_MISMATCH),
    StaleAttempt: (_Code.ABORTED, _Reason.ERROR_REASON_STALE_ATTEMPT),
    WrongState: (_Code.FAILED_PRECONDITION, _Reason.ERROR_REASON_WRONG_STATE),
    ResourceExhausted: (_Code.RESOURCE_EXHAUSTED, _Reason.ERROR_REASON_RESOURCE_EXHAUSTED),
    Unavailable: (_Code.UNAVAILABLE, _Reason.ERROR_REASON_UNAVAILABLE),
    DeadlineExceeded: (_Code.DEADLINE_EXCEEDED, _Reason.ERROR_REASON_DEADLINE_EXCEEDED),
    Unimplemented: (_Code.UNIMPLEMENTED, _Reason.ERROR_REASON_UNIMPLEMENTED),
    Cancelled: (_Code.CANCELLED, _Reason.ERROR_REASON_CANCELLED),
    VersionBroken: (_Code.FAILED_PRECONDITION, _Reason.ERROR_REASON_VERSION_BROKEN),
    NotServedYet: (_Code.DEADLINE_EXCEEDED, _Reason.ERROR_REASON_NOT_SERVED_YET),
}


def reason_name(reason: errors_pb2.ErrorReason.ValueType) -> str:
    """The reason as it stands in ErrorInfo: without the enum's prefix."""
    return _Reason.Name(reason).removeprefix("ERROR_REASON_")


def to_status(error: BaseException, *, request_id: str = "") -> status_pb2.Status:
    """What a caller is told of `error`. Anything outside the tree becomes INTERNAL with a fixed text."""
    if not isinstance(error, ModelyardError):
        return _internal_status(request_id)
    code, reason = STATUS_TABLE[type(error)]
    info = error_details_pb2.ErrorInfo(reason=reason_name(reason), domain=DOMAIN, metadata=error.metadata)
    details: list[any_pb2.Any] = [_pack(_with_request_id(info, request_id))]
    if isinstance(error, InvalidFields):
        details.append(_pack(_bad_request(error.violations)))
    if error.retry_after is not None:
        delay = duration_pb2.Duration(nanos=0)
        delay.FromNanoseconds(round(error.retry_after * 1e9))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=code.value[0], message=error.message, details=details)


def _internal_status(request_id: str) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=reason_name(_Reason.ERROR_REASON_INTERNAL), domain=DOMAIN)
    return status_pb2.Status(
        code=code_pb2.INTERNAL, message=INTERNAL_TEXT, details=[_pack(_with_request_id(info, request_id))]
    )


def _with_request_id(info: error_details_pb2.ErrorInfo, request_id: str) -> error_details_pb2.ErrorInfo:
    if request_id:
        info.metadata["request_id"] = request_id
    return info


def _bad_request(violations: Sequence[FieldViolation]) -> error_details_pb2.BadRequest:
    request = error_details_pb2.BadRequest()
    room = _VIOLATION_BYTES
    for index, violation in enumerate(violations):
        room -= len(violation.field.encode()) + len(violation.description.encode())
        if index and room < 0:
            description = f"this and {len(violations) - index - 1} more are wrong; there is no room to say how"
            request.field_violations.add(field=violation.field, description=description)
            break
        request.field_violations.add(field=violation.field, description=violation.description)
    return request


def _pack(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


class RemoteError(Exception):
    """An error that a service answered, unpacked: branch on `code` and `reason`, show `message` to people."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        """Name of an `ErrorReason` without prefix; empty if a proxy or the transport made the error."""
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after
        """Seconds, as the service advised; None if it gave no advice."""

    def __str__(self) -> str:
        return f"{self.code.name}{f' ({self.reason})' if self.reason else ''}: {self.message}"

    @classmethod
    def from_rpc(cls, error: grpc.RpcError) -> RemoteError:
        """Unpacks what a stub raised (`grpc.RpcError` of either API)."""
        call: grpc.Call = error  # type: ignore[assignment]  # what a stub raises is a call too; grpc's types do not say so
        remote = cls(call.code(), call.details() or "")
        trailer = dict(call.trailing_metadata() or ()).get(DETAILS_TRAILER)
        if isinstance(trailer, bytes):
            remote._unpack(status_pb2.Status.FromString(trailer))
        return remote

    def _unpack(self, status: status_pb2.Status) -> None:
        info, request, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        for detail in status.details:
            if detail.Unpack(info):
                self.reason, self.metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(request):
                self.violations = tuple(FieldViolation(v.field, v.description) for v in request.field_violations)
            elif detail.Unpack(retry):
                self.retry_after = retry.retry_delay.ToNanoseconds() / 1e9


def raise_remote(error: grpc.RpcError) -> NoReturn:
    """Raises the unpacked form of what a stub raised."""
    raise RemoteError.from_rpc(error) from error
