"""What the pod tells of its predictions to whoever watches them: metrics, traces. Called in the event loop.

The calls are part of every prediction, tens of thousands a second: an observer adds numbers up and returns. What is the
same for all requests of one run comes as one `Execution`, made once for all of them.
"""

from __future__ import annotations

from typing import Protocol

from modelyard.inference.calls import PredictionCall
from modelyard.inference.serving.versions import LoadedVersion

from .statistics import Execution


class PredictionObserver(Protocol):
    """Hears of every prediction, once, and of every run of a graph."""

    def answered(
        self, version: LoadedVersion, call: PredictionCall, rows: int, total_ns: int, queue_ns: int, run: Execution,
        requests: int = 1,
    ) -> None:  # fmt: skip
        """A request of so many rows was answered, `total_ns` after it arrived, of which it waited `queue_ns`.

        `run` computed it, perhaps for others too: it is the same object for all of them. `requests`: so many that came
        together and were answered together.
        """

    def failed(self, version: LoadedVersion, call: PredictionCall, error: BaseException, total_ns: int) -> None:
        """A request that had reached a version failed or was given up; a cancelled one with CancelledError."""

    def executed(self, version: LoadedVersion, run: Execution) -> None:
        """A graph ran once. Told before the requests of this run are answered."""


class NullObserver:
    """Watches nothing."""

    def answered(
        self, version: LoadedVersion, call: PredictionCall, rows: int, total_ns: int, queue_ns: int, run: Execution,
        requests: int = 1,
    ) -> None:  # fmt: skip
        """Nothing."""

    def failed(self, version: LoadedVersion, call: PredictionCall, error: BaseException, total_ns: int) -> None:
        """Nothing."""

    def executed(self, version: LoadedVersion, run: Execution) -> None:
        """Nothing."""
