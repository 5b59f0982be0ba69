"""The TraceSetting call: Triton's names for what this process traces."""

from __future__ import annotations

import re
from typing import Final, Protocol

from modelyard.core.errors import Violations, WrongState
from modelyard.core.logs import get_logger
from modelyard.core.names import shorten
from modelyard.oip import open_inference_pb2 as pb

OFF: Final = "OFF"
TIMESTAMPS: Final = "TIMESTAMPS"
DEFAULT_RATE: Final = 1000
"""Triton's: one request of so many."""

_LEVEL, _RATE = "trace_level", "trace_rate"
_FIXED: Final = {"trace_count": "-1", "log_frequency": "0", "trace_file": "", "trace_mode": "opentelemetry"}
"""Told, not changed: spans go to the collector that the process was started with, as they end."""
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")

log = get_logger()


class Sampling(Protocol):
    """Decides which requests are traced, of those whose caller has not decided it."""

    @property
    def available(self) -> bool:
        """Whether there is anywhere to send traces to."""
        ...

    ratio: float
    """The part of requests that is traced, 0 to 1. May be set at any time."""


class NoSampling:
    """Where nothing is traced."""

    available = False
    ratio = 0.0


class TraceSettings:
    """Reads and changes the sampling, in Triton's words: off, or one request of so many."""

    def __init__(self, sampling: Sampling | None = None) -> None:
        self._sampling: Sampling = sampling or NoSampling()
        self._rate = DEFAULT_RATE
        """What was asked for last; it counts while tracing is on."""

    def change(self, request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
        """Changes what is given, all or nothing, and answers what holds now. No values mean the default.

        Raises InvalidFields for what cannot be changed, and WrongState if there is nowhere to send traces to.
        """
        if request.settings:
            self._check(request)
            self._apply(request)
        return self._tell()

    def _check(self, request: pb.TraceSettingRequest) -> None:
        violations = Violations()
        if request.model_name:
            violations.add("model_name", "expected nothing: tracing is set for the whole pod")
        for name, setting in request.settings.items():
            wrong = _what_is_wrong(name, list(setting.value))
            if wrong:
                violations.add(f"settings[{shorten(name)}]", wrong)
        violations.raise_if_any()

    def _apply(self, request: pb.TraceSettingRequest) -> None:
        on, self._rate = self._sampling.ratio > 0, self._current_rate()
        if _LEVEL in request.settings:
            on = list(request.settings[_LEVEL].value) == [TIMESTAMPS]
        if on and not self._sampling.available:
            raise WrongState("this pod has nowhere to send traces to; see its settings")
        if _RATE in request.settings:
            values = request.settings[_RATE].value
            self._rate = int(values[0]) if values else DEFAULT_RATE
        self._sampling.ratio = 1 / self._rate if on else 0.0
        log.info("trace settings changed", on=on, rate=self._rate)

    def _current_rate(self) -> int:
        return round(1 / self._sampling.ratio) if self._sampling.ratio > 0 else self._rate

    def _tell(self) -> pb.TraceSettingResponse:
        response = pb.TraceSettingResponse()
        on = self._sampling.available and self._sampling.ratio > 0
        response.settings[_LEVEL].value.append(TIMESTAMPS if on else OFF)
        response.settings[_RATE].value.append(str(self._current_rate()))
        for name, value in _FIXED.items():
            response.settings[name].value.append(value)
        return response


def _what_is_wrong(name: str, values: list[str]) -> str:
    """Why a setting cannot have these values; empty if it can. No values: its default."""
    if name == _LEVEL:
        return (
            "" if values in ([], [OFF], [TIMESTAMPS]) else f"expected {OFF} or {TIMESTAMPS}; tensors are never traced"
        )
    if name == _RATE:
        number = not values or (len(values) == 1 and _NUMBER.fullmatch(values[0]))
        return "" if number else "expected one number from 1 to 999999999: one request of so many is traced"
    if name in _FIXED:
        return "" if values in ([], [_FIXED[name]]) else f"expected {_FIXED[name]!r}, which cannot be changed"
    return f"expected one of {', '.join((_LEVEL, _RATE, *_FIXED))}"
