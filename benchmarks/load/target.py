"""What is asked of whom, how hard, and what came of it."""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass
from typing import Any

from modelyard.oip.service import method_path

_PREFIX = struct.Struct(">?I")


def framed(message: bytes) -> bytes:
    """A message as gRPC sends it: behind a flag (compressed or not) and its length in four bytes."""
    return _PREFIX.pack(False, len(message)) + message


@dataclass(frozen=True)
class Target:
    """A unary call that is repeated."""

    address: str
    message: bytes
    """The serialized request."""
    metadata: tuple[tuple[str, str], ...] = ()
    path: str = method_path("ModelInfer")

    @property
    def frame(self) -> bytes:
        """The message as it goes over the wire."""
        return framed(self.message)


@dataclass(frozen=True)
class Load:
    """How hard. The next request goes out as soon as one is answered."""

    connections: int
    streams: int
    """Requests in flight per connection."""
    per_second: int = 0
    """At most so many requests per second and connection; 0: no such limit."""

    @property
    def in_flight(self) -> int:
        """Requests that wait for their answers at any moment."""
        return self.connections * self.streams


@dataclass(frozen=True)
class Measured:
    """What came of a load."""

    rate: float
    """Answered requests per second."""
    requests: int
    """Answered in all."""
    mean_us: float
    p50_us: float | None = None
    """Only measured for single callers: h2load's log of every request costs what the fast servers cost."""
    p99_us: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
