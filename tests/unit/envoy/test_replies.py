"""Envoy's own errors carry details that client libraries accept."""

from __future__ import annotations

import base64

import pytest
from google.rpc import error_details_pb2, status_pb2

from modelyard.core.errors import ModelyardError
from modelyard.door.routes import UNKNOWN
from modelyard.envoy.replies import DEADLINE, HUNG_UP, UNREACHABLE, details_header, local_replies


@pytest.mark.parametrize("error", [UNKNOWN, UNREACHABLE, HUNG_UP, DEADLINE], ids=lambda error: type(error).__name__)
def test_details_say_the_same_as_the_status_itself(error: ModelyardError) -> None:
    """grpc_status and its like in other languages refuse details with another code or text."""
    value = details_header(error)["header"]["value"]
    status = status_pb2.Status.FromString(base64.b64decode(value + "=" * (-len(value) % 4)))
    info = error_details_pb2.ErrorInfo()
    assert status.message == error.message
    assert status.details[0].Unpack(info)
    assert info.domain == "modelyard"


def test_only_an_error_before_anything_was_sent_advises_to_try_again() -> None:
    """Whoever follows RetryInfo blindly must not repeat a change that may have taken effect."""
    assert UNREACHABLE.retry_after is not None
    assert HUNG_UP.retry_after is None


def test_each_flag_is_told_in_one_way() -> None:
    filters = [mapper["filter"] for mapper in local_replies()["mappers"]]
    flags = [flag for each in filters for flag in each.get("response_flag_filter", {}).get("flags", [])]
    assert len(flags) == len(set(flags))
