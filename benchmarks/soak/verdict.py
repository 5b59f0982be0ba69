"""What a soak has shown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import grpc

_RIGHT = {
    "plain": {"OK"},
    "cancelled": {"OK", "CANCELLED"},
    "expired": {"OK", "DEADLINE_EXCEEDED"},
}
"""By kind of call, how it may end. A call may be answered before it is given up."""
_BROKEN_OFF = "plain/UNAVAILABLE"
_MOST_GROWTH = 0.05
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_HARMLESS = {"debug", "info"}
_ENVOY_TROUBLE = ("[error]", "[critical]")


@dataclass(frozen=True)
class Outcome:
    """Counts, memory and log of a soak."""

    done: int
    ended: Mapping[str, int]
    """Calls by `KIND/CODE`."""
    wrong_answers: int
    seconds: float
    memory_bytes: Sequence[int]
    """The pod's, every few seconds from the first request to the last."""
    log_problems: Sequence[str]
    broken_connections: int = 0
    """Connections on which the client broke HTTP/2's rules, by Envoy's count: see the README on gRPC's own client."""
    calls_per_connection: int = 0
    """At most so many calls were in flight on each of them."""

    @property
    def unanswered(self) -> int:
        """Calls that ended otherwise than they may, and not with a connection that the client itself had broken."""
        return sum(count for name, count in self.ended.items() if not _may_end(name)) - self.broken_off

    @property
    def broken_off(self) -> int:
        """Calls that ended with a connection that the client had broken."""
        return min(self.ended.get(_BROKEN_OFF, 0), self.broken_connections * self.calls_per_connection)

    @property
    def given_up(self) -> int:
        """Calls that were cancelled or expired before they were answered."""
        return sum(count for name, count in self.ended.items() if _may_end(name) and not name.endswith("/OK"))

    @property
    def growth(self) -> float:
        """Memory of the last tenth over that of the second tenth, when everything has been used once, less 1."""
        tenth = max(1, len(self.memory_bytes) // 10)
        early = statistics.median(self.memory_bytes[tenth : 2 * tenth] or self.memory_bytes[:1])
        return statistics.median(self.memory_bytes[-tenth:]) / early - 1

    def failures(self, wanted: int) -> list[str]:
        """Why it is not good; empty if it is."""
        reasons = {
            f"{self.done} of {wanted} calls ended": self.done != wanted,
            f"{self.unanswered} calls were not answered as they should be": self.unanswered > 0,
            f"{self.wrong_answers} answers were wrong": self.wrong_answers > 0,
            f"memory grew by {self.growth:.1%}": self.growth > _MOST_GROWTH,
            f"{len(self.log_problems)} problems in the log, first: {next(iter(self.log_problems), '')}": bool(
                self.log_problems
            ),
        }
        return [reason for reason, holds in reasons.items() if holds]


def _may_end(name: str) -> bool:
    kind, _, code = name.partition("/")
    return code in _RIGHT.get(kind, set())


def counts(output: str) -> dict[str, int]:
    """The soak program's `result NAME COUNT` lines, with codes by name."""
    found = {}
    for line in output.splitlines():
        if line.startswith("result "):
            _, name, count = line.split()
            kind, slash, code = name.partition("/")
            found[f"{kind}/{_CODES[int(code)]}" if slash else name] = int(count)
    return found


def problems_in_log(lines: Iterable[str]) -> list[str]:
    """Lines of a pod's log that tell of trouble: warnings and worse, Envoy's errors, tracebacks."""
    return [line.strip() for line in lines if _is_trouble(line)]


def _is_trouble(line: str) -> bool:
    if line.startswith("{"):
        try:
            return json.loads(line).get("level") not in _HARMLESS
        except ValueError:
            return True
    return any(sign in line for sign in _ENVOY_TROUBLE) or line.startswith("Traceback")
