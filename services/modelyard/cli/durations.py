"""Lengths of time, as people write and read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DAY_S = 86400


def seconds(text: str, what: str = "a time") -> int:
    """`90d` in seconds; raises ValueError that says `what` was expected."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if match is None:
        raise ValueError(f"expected {what} such as 45s, 30m, 12h or 90d; got {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def clock(span_s: float) -> str:
    """A length of time: `0:42`, `3:05:09`, `2 d 03:00`."""
    whole = max(0, round(span_s))
    days, rest = divmod(whole, _DAY_S)
    hours, minutes = rest // 3600, rest // 60 % 60
    if days:
        return f"{days} d {hours:02d}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{rest % 60:02d}" if hours else f"{minutes}:{rest % 60:02d}"


def span(duration: Duration) -> str:
    """The same of a message's duration."""
    return clock(duration.ToNanoseconds() / 1e9)


def between(first: Timestamp, last: Timestamp) -> float:
    """Seconds from one moment to the other."""
    return (last.ToNanoseconds() - first.ToNanoseconds()) / 1e9


def since(moment: Timestamp) -> float:
    """Seconds since a moment, by this machine's clock; never less than 0."""
    return max(0.0, (datetime.now(tz=UTC) - moment.ToDatetime(tzinfo=UTC)).total_seconds())


def until(moment: Timestamp) -> float:
    """Seconds to a moment, by this machine's clock; never less than 0."""
    return max(0.0, (moment.ToDatetime(tzinfo=UTC) - datetime.now(tz=UTC)).total_seconds())
