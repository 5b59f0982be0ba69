"""Times between the wire and the domain, which counts microseconds."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def to_timestamp(time: int) -> Timestamp:
    """From microseconds since 1970."""
    return Timestamp(seconds=time // 1_000_000, nanos=time % 1_000_000 * 1000)


def to_duration(seconds: float) -> Duration:
    """From seconds."""
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def to_microseconds(duration: Duration) -> int:
    """From a duration, rounded up, so that a positive one does not become 0."""
    return -(-(duration.seconds * 10**9 + duration.nanos) // 1000)
