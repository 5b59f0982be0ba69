"""Which trace a call belongs to: the header `traceparent`, read, kept with the call, and given on to other services.

The header: W3C Trace Context, https://www.w3.org/TR/trace-context/. Needs no tracing library: a service that records no
spans of its own still hands the trace on and writes its id into the log. `tracing` records spans.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"

_FORM = re.compile(
    r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-[0-9a-f]([0-9a-f])(-.*)?", re.ASCII
)
"""Version, trace, span, the lower four flags; what later versions may add."""
_ODD = "13579bdf"
_SAMPLED = 1
_MOST_STATE = 512
"""Characters of `tracestate` that are given on; the recommendation asks for no more."""


class Parent(NamedTuple):
    """The caller's span, as its headers name it."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    sampled: bool
    """Whether the caller records the trace, and wants us to."""
    state: str = ""
    """What the caller's tracing system wants to be given on."""

    @classmethod
    def read(cls, metadata: Mapping[str, str | bytes]) -> Parent | None:
        """From a call's metadata; None if it names no span, or not as the recommendation says."""
        match = _FORM.fullmatch(str(metadata.get(TRACEPARENT, "")))
        if match is None:
            return None
        version, trace_id, span_id, flags, more = match.groups()
        if more and version == "00":
            return None
        state = str(metadata.get(TRACESTATE, ""))
        return cls(trace_id, span_id, flags in _ODD, state if len(state) <= _MOST_STATE else "")


class Trace:
    """A call's place in a trace that we only hand on."""

    __slots__ = ("_sampled", "_span_id", "_state", "trace_id")

    def __init__(self, trace_id: str, span_id: str, *, sampled: bool, state: str = "") -> None:
        self.trace_id = trace_id
        self._span_id = span_id
        self._sampled = sampled
        self._state = state

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """The metadata that a call to another service carries."""
        parent = TRACEPARENT, traceparent(self.trace_id, self._span_id, sampled=self._sampled)
        return (parent, (TRACESTATE, self._state)) if self._state else (parent,)

    @property
    def recorded(self) -> bool:
        """Whether spans are made of this call; only then is it worth telling it anything."""
        return False

    def note(self, **attributes: str | float) -> None:
        """Says more of the call."""

    def child(self, name: str, start_ns: int, end_ns: int, **attributes: str | float) -> None:
        """A part of the call, in nanoseconds since 1970."""

    def end(self, code: str) -> None:
        """The call has ended with this status code (`OK`, `NOT_FOUND`, …)."""


def traceparent(trace_id: str, span_id: str, *, sampled: bool) -> str:
    """The header's value."""
    return f"00-{trace_id}-{span_id}-{_SAMPLED if sampled else 0:02x}"


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current() -> Trace | None:
    """The trace of the call that is being answered; None outside any, and for a call that belongs to none."""
    return _current.get()


def enter(trace: Trace | None) -> Token[Trace | None]:
    """Makes this the current trace, in this task and those it starts."""
    return _current.set(trace)


def outgoing() -> Sequence[tuple[str, str]]:
    """The metadata for a call to another service: of the current trace, or of the program's own OpenTelemetry span."""
    trace = _current.get()
    if trace is not None:
        return trace.headers
    # A program that has not loaded OpenTelemetry has no span; loading it to find that out would take a while.
    api: Any = sys.modules.get("opentelemetry.trace")
    return _of_span(api.get_current_span().get_span_context()) if api is not None else ()


def _of_span(context: Any) -> Sequence[tuple[str, str]]:
    if not context.is_valid:
        return ()
    sampled = bool(context.trace_flags & _SAMPLED)
    trace = Trace(
        f"{context.trace_id:032x}", f"{context.span_id:016x}", sampled=sampled, state=context.trace_state.to_header()
    )
    return trace.headers
