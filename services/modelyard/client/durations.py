"""Seconds as protobuf's Duration."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration


def to_duration(seconds: float) -> Duration:
    """From seconds, to the nanosecond."""
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def optional_duration(seconds: float | None) -> Duration | None:
    """None stays None: a field that is not set."""
    return None if seconds is None else to_duration(seconds)
