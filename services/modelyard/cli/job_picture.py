"""A job as its events tell it, drawn in a few lines: loss curve, bar, figures."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from rich.text import Text

from modelyard.client.training import TERMINAL_STATES
from modelyard.v1 import training_job_pb2 as pb
from modelyard.v1.training_service_pb2 import TrainingJobExplanation

from .durations import clock, since
from .explanations import waiting_for
from .job_lines import STATE_STYLES, State, harmless, place, state_name
from .loss_curve import LossCurve
from .plotting import caption, plot

_SPEED_OVER_S = 15.0
_TRAINING = {State.STATE_RUNNING, State.STATE_EVALUATING, State.STATE_EXPORTING, State.STATE_PUBLISHING}
_HELD = {State.STATE_LEASED, State.STATE_PREPARING, State.STATE_CANCELLING, State.STATE_PAUSING} | _TRAINING
_SMALL_WINDOW = 12
_MOST_ROWS = 14


class JobPicture:
    """Takes events in and answers lines."""

    def __init__(
        self,
        job: pb.TrainingJob,
        *,
        ascii_only: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`job`: as it was when the first event was asked for. `monotonic`: the clock that counts the time left."""
        self.state = job.state
        self.attempt = job.attempt
        self.worker = job.worker
        self.curve = LossCurve()
        self.progress = pb.TrainingProgress()
        self.checkpoint = pb.Checkpoint()
        self.waiting_for = ""
        """Why the job waits, in a few words, if that is known."""
        self.queue = job.scheduling.queue
        self._changed = job.update_time
        self._ascii = ascii_only
        self._monotonic = monotonic
        self._heard = monotonic()
        self._speeds: deque[tuple[float, int]] = deque(maxlen=200)
        if job.HasField("progress"):
            self._take_progress(job.progress, job.update_time.ToNanoseconds() / 1e9)
        if job.HasField("checkpoint"):
            self.checkpoint.CopyFrom(job.checkpoint)

    def take(self, event: pb.TrainingJobEvent) -> None:
        """Takes one event in."""
        self.attempt = event.attempt or self.attempt
        kind = event.WhichOneof("payload")
        if kind == "state_change":
            self.state = event.state_change.state
            self._changed = event.time
            self.waiting_for = ""
        elif kind == "progress":
            self._take_progress(event.progress, event.time.ToNanoseconds() / 1e9)
        elif kind == "checkpoint":
            self.checkpoint.CopyFrom(event.checkpoint)
        elif kind == "attempt_start":
            self.worker = event.attempt_start.worker
            self._speeds.clear()

    def explain(self, explanation: TrainingJobExplanation) -> None:
        """Notes why the job waits, unless it has stopped waiting meanwhile."""
        waits = {self.state, explanation.training_job.state} == {State.STATE_QUEUED}
        self.waiting_for = waiting_for(explanation) if waits else ""

    def _take_progress(self, progress: pb.TrainingProgress, moment_s: float) -> None:
        self.progress.CopyFrom(progress)
        self.curve.add(progress)
        self._heard = self._monotonic()
        if self._speeds and progress.step < self._speeds[-1][1]:
            self._speeds.clear()
        self._speeds.append((moment_s, progress.step))
        while len(self._speeds) > 2 and moment_s - self._speeds[0][0] > _SPEED_OVER_S:
            self._speeds.popleft()

    def lines(self, columns: int, rows: int) -> list[Text]:
        """The picture for a window of this size."""
        below = [self._bar_line(columns), self._figures_line(columns)] if self.progress.max_epochs else []
        # How it ended is told below the picture, with more than has room in it.
        place_line = [] if self.state in TERMINAL_STATES else [self._place_line()]
        return [*self._curve_lines(columns, rows), *below, *place_line]

    def _curve_lines(self, columns: int, rows: int) -> list[Text]:
        drawn = self.curve.lines()
        # At least half of the window is for what happens.
        height = min(_MOST_ROWS, rows // 2 - 5)
        if rows < _SMALL_WINDOW or len(self.curve) < 2 or not drawn:
            return []
        plotted = plot(drawn, columns, max(height, 3), ascii_only=self._ascii)
        if not plotted:
            return []
        first, last = (f"epoch {epoch:,}" for epoch in self.curve.epochs)
        return [*plotted, caption(drawn, first, last, columns, ascii_only=self._ascii)]

    def _bar_line(self, columns: int) -> Text:
        progress = self.progress
        share = min(1.0, progress.epoch / progress.max_epochs)
        right = f"epoch {progress.epoch:,}/{progress.max_epochs:,}"
        left = self.time_left()
        if left:
            right += f"  {left}"
        width = max(10, min(60, columns - len(right) - 4))
        full = int(share * width)
        done, open_ = ("#", "-") if self._ascii else ("━", "╌")
        return Text.assemble("  ", (done * full, "green"), (open_ * (width - full), "dim"), f"  {right}")

    def time_left(self) -> str:
        """The expected time to the last epoch, counted down since it was told; empty if nobody knows."""
        if self.state != State.STATE_RUNNING or not self.progress.HasField("remaining"):
            return ""
        left_s = self.progress.remaining.ToNanoseconds() / 1e9 - (self._monotonic() - self._heard)
        return f"at most {clock(left_s)} left" if left_s > 0 else ""

    def _figures_line(self, columns: int) -> Text:
        """As many whole figures as fit: half a number would be a wrong one."""
        shown, *others = figures(self.progress, self.steps_per_second())
        for figure in others:
            if len(shown) + len(figure) + 4 > columns:
                break
            shown += f"  {figure}"
        return Text(f"  {shown}")

    def steps_per_second(self) -> float:
        """Over the last seconds; 0 if it is not known."""
        if len(self._speeds) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._speeds[0], self._speeds[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0

    def _place_line(self) -> Text:
        state = state_name(self.state)
        text = Text.assemble("  ", (state.lower(), STATE_STYLES.get(state, "cyan")))
        if self.state == State.STATE_QUEUED:
            text.append(f" {clock(since(self._changed))}", "dim")
            text.append(f" in {self.queue}" if self.queue else "", "dim")
            text.append(f": {self.waiting_for}" if self.waiting_for else "", "dim")
            return text
        if self.state in _HELD and self.worker:
            text.append(f"  attempt {self.attempt} on {harmless(self.worker)}", "dim")
        if self.checkpoint.step:
            text.append(f"  checkpoint at {place(self.checkpoint)}", "dim")
        return text


def figures(progress: pb.TrainingProgress, steps_per_second: float = 0.0) -> list[str]:
    """How far, how good and how fast, the weightiest first."""
    parts = [f"step {progress.step:,}"]
    if progress.epoch:
        parts.append(f"training loss {progress.training_loss:.4g}")
        if progress.validation_loss or progress.best_epoch:
            parts.append(f"validation {progress.validation_loss:.4g}")
        if progress.best_epoch:
            parts.append(f"best {progress.best_validation_loss:.4g} in epoch {progress.best_epoch:,}")
    if steps_per_second:
        parts.append(f"{steps_per_second:,.4g} steps/s")
    if progress.rows_per_second:
        parts.append(f"{progress.rows_per_second:,.0f} rows/s")
    return parts
