"""What is worth repeating, and how long it is repeated."""

from __future__ import annotations

import grpc
import pytest

from modelyard.core.errors import RemoteError
from modelyard.core.retries import Backoff, Patience, is_transient

Code = grpc.StatusCode


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.CANCELLED])
def test_what_a_broken_connection_looks_like_is_worth_repeating(code: grpc.StatusCode) -> None:
    assert is_transient(RemoteError(code, "broke"))


@pytest.mark.parametrize("code", [Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.ABORTED, Code.RESOURCE_EXHAUSTED])
def test_what_the_caller_got_wrong_is_not(code: grpc.StatusCode) -> None:
    assert not is_transient(RemoteError(code, "no"))


def test_advice_to_try_again_makes_any_error_worth_repeating() -> None:
    assert is_transient(RemoteError(Code.RESOURCE_EXHAUSTED, "full", retry_after=1.0))


def test_waits_double_up_to_the_limit_and_start_over_after_a_success() -> None:
    backoff = Backoff(first_s=1.0, limit_s=4.0)
    bounds = [(0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (2.0, 4.0)]
    for least, most in bounds:
        assert least <= backoff.next_s() <= most
    backoff.reset()
    assert 0.5 <= backoff.next_s() <= 1.0


def test_the_services_advice_is_kept_up_to_the_limit() -> None:
    backoff = Backoff(first_s=0.1, limit_s=4.0)
    assert backoff.next_s(RemoteError(Code.UNAVAILABLE, "", retry_after=3.0)) == 3.0
    assert backoff.next_s(RemoteError(Code.UNAVAILABLE, "", retry_after=3_600.0)) == 4.0


def test_patience_at_its_end_raises_the_error_itself() -> None:
    error = RemoteError(Code.UNAVAILABLE, "away")
    with pytest.raises(RemoteError) as raised:
        Patience(0.0).wait_s(error)
    assert raised.value is error


def test_progress_renews_patience() -> None:
    patience = Patience(3_600.0)
    patience.progressed()
    assert 0 < patience.wait_s(RemoteError(Code.UNAVAILABLE, "away")) <= 0.1
