"""Envoy's own errors as gRPC statuses like the services': a text for people, ErrorInfo and RetryInfo for programs."""

from __future__ import annotations

import base64
from http import HTTPStatus
from typing import Any

from modelyard.core.errors import DeadlineExceeded, ModelyardError, Unavailable, to_status

UNREACHABLE = Unavailable("the service cannot be reached at the moment; try again", retry_after=1.0)
HUNG_UP = Unavailable(
    "the service went away before it answered; whether the call took effect is not known: "
    "look, or repeat it with the same request_id"
)
DEADLINE = DeadlineExceeded("the time for the call was over before the service answered")

# Envoy's response flags: https://www.envoyproxy.io/docs/envoy/v1.39.0/configuration/observability/access_log/usage
_TOO_LONG = ["DT", "UMSDR"]
_HUNG_UP = ["UC", "UR", "UPE"]
_UNREACHABLE = ["UH", "UF", "UO", "URX", "NC", "LH"]


def local_replies() -> dict[str, Any]:
    """Envoy's `LocalReplyConfig`. The first mapper that fits decides."""
    return {
        "mappers": [
            _mapper(_status(HTTPStatus.GATEWAY_TIMEOUT), DEADLINE),
            _mapper(_flags(_TOO_LONG), DEADLINE),
            _mapper(_flags(_HUNG_UP), HUNG_UP),
            _mapper(_flags(_UNREACHABLE), UNREACHABLE),
        ]
    }


def _flags(flags: list[str]) -> dict[str, Any]:
    return {"response_flag_filter": {"flags": flags}}


def _status(code: HTTPStatus) -> dict[str, Any]:
    # Envoy wants a name under which the number could be changed at run time; nobody does.
    value = {"default_value": int(code), "runtime_key": "modelyard.unused"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _mapper(when: dict[str, Any], error: ModelyardError) -> dict[str, Any]:
    return {
        "filter": when,
        "body": {"inline_string": error.message},
        "headers_to_add": [_header("grpc-status", str(to_status(error).code)), details_header(error)],
    }


def details_header(error: ModelyardError) -> dict[str, Any]:
    """`grpc-status-details-bin` for `error`, to be added to a local reply that has the same code and text."""
    details = base64.b64encode(to_status(error).SerializeToString()).decode().rstrip("=")
    return _header("grpc-status-details-bin", details)


def _header(key: str, value: str) -> dict[str, Any]:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
