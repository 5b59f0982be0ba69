"""What the pod tells of its predictions to whoever watches them: metrics, traces. Called in the event loop."""

from __future__ import annotations

from typing import Protocol

from .calls import PredictionCall
from .statistics import StageTimes
from .versions import LoadedVersion


class PredictionObserver(Protocol):
    """Hears of every prediction, once, and of every run of a graph."""

    def answered(
        self, version: LoadedVersion, call: PredictionCall, rows: int, total_ns: int, times: StageTimes
    ) -> None:
        """A request was answered, `total_ns` after it arrived."""

    def failed(self, version: LoadedVersion, call: PredictionCall, error: BaseException, total_ns: int) -> None:
        """A request that had reached a version failed or was given up; a cancelled one with CancelledError."""

    def executed(self, version: LoadedVersion, requests: int, rows: int, infer_ns: int) -> None:
        """A graph ran once, for so many requests with so many rows together."""


class NullObserver:
    """Watches nothing."""

    def answered(
        self, version: LoadedVersion, call: PredictionCall, rows: int, total_ns: int, times: StageTimes
    ) -> None:
        """Nothing."""

    def failed(self, version: LoadedVersion, call: PredictionCall, error: BaseException, total_ns: int) -> None:
        """Nothing."""

    def executed(self, version: LoadedVersion, requests: int, rows: int, infer_ns: int) -> None:
        """Nothing."""
