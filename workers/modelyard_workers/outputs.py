"""What comes out of a trainer, turned into updates: events from its event pipe, log lines from what it prints."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf import json_format

from modelyard.core.names import shorten
from modelyard.v1.training_job_pb2 import TrainingJob
from modelyard.v1.worker_service_pb2 import TrainingUpdate

from .lines import LINE_CHARACTERS, LineSplitter, readable
from .log_limit import LogLimit

Deliver = Callable[[TrainingUpdate], None]

_EVENT_BYTES = 256 * 1024
_EVALUATIONS = 16  # one is usual; updates of which there may be any number are progress and log lines only
_TAIL_BYTES = 2_048
_BYTES_PER_CHARACTER = 4  # of UTF-8, at most

_KINDS = frozenset({"state", "progress", "evaluation", "checkpoint"})
_ORDER = {
    TrainingJob.STATE_PREPARING: 0,  # the worker has said so itself, before it fetched the data
    TrainingJob.STATE_RUNNING: 1,
    TrainingJob.STATE_EVALUATING: 2,
    TrainingJob.STATE_EXPORTING: 3,
}


class EventStream:
    """Newline-delimited proto JSON of TrainingUpdate. What is none is counted, told once, and otherwise ignored."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._splitter = LineSplitter(_EVENT_BYTES)
        self._state: TrainingJob.State.ValueType = TrainingJob.STATE_PREPARING
        self._evaluations_left = _EVALUATIONS
        self.malformed = 0
        """How many lines were no event."""

    def feed(self, data: bytes) -> None:
        """Takes bytes as they come."""
        for line, cut in self._splitter.feed(data):
            self._take(line, cut)

    def finish(self) -> None:
        """The pipe is closed."""
        for line, cut in self._splitter.finish():
            self._take(line, cut)

    def _take(self, line: bytes, cut: bool) -> None:
        if not line.strip():
            return
        update = None if cut else _parse(line)
        if update is None:
            self._complain(line)
        elif update.HasField("state"):
            self._enter(update)
        elif not update.HasField("evaluation") or self._evaluations_left > 0:
            self._evaluations_left -= update.HasField("evaluation")
            self._deliver(update)

    def _enter(self, update: TrainingUpdate) -> None:
        """States only ever advance, so that a trainer that repeats itself cannot fill the job's history."""
        order = _ORDER.get(update.state)
        if order is not None and order > _ORDER[self._state]:
            self._state = update.state
            self._deliver(update)

    def _complain(self, line: bytes) -> None:
        self.malformed += 1
        if self.malformed == 1:
            text = shorten(readable(line[:400]))
            self._deliver(TrainingUpdate(log_line=f"… the trainer wrote something that is no event: {text}"))


def _parse(line: bytes) -> TrainingUpdate | None:
    update = TrainingUpdate()
    try:
        json_format.Parse(line, update)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError):
        return None
    # Log lines come from standard output and error, where they are limited.
    return update if update.WhichOneof("payload") in _KINDS else None


class LogStream:
    """Standard output or error: log lines within the limit, and the last bytes for a failure's message."""

    def __init__(self, deliver: Deliver, limit: LogLimit) -> None:
        self._deliver = deliver
        self._limit = limit
        self._splitter = LineSplitter(LINE_CHARACTERS * _BYTES_PER_CHARACTER)
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Takes bytes as they come."""
        self._tail = (self._tail + data[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        if self._limit.flooded():
            # Counting line ends is all that can be afforded.
            self._limit.drop(self._splitter.skip(data))
            return
        for line, cut in self._splitter.feed(data):
            self._take(line, cut)

    def finish(self) -> None:
        """The pipe is closed."""
        for line, cut in self._splitter.finish():
            self._take(line, cut)
        self._tell_gap()

    def tail(self) -> str:
        """The last lines that were printed, at most about 2,000 characters."""
        text = self._tail.decode("utf-8", errors="replace")
        whole = text.partition("\n")[2] if len(self._tail) == _TAIL_BYTES else text
        return "\n".join(readable(line.encode()) for line in whole.splitlines()).strip()

    def _take(self, line: bytes, cut: bool) -> None:
        if not self._limit.admits():
            return
        self._tell_gap()
        self._deliver(TrainingUpdate(log_line=readable(line, cut=cut)))

    def _tell_gap(self) -> None:
        gap = self._limit.gap()
        if gap is not None:
            self._deliver(TrainingUpdate(log_line=gap))
