"""A training job drawn in the terminal: one bar with live loss and ETA, the states and log lines above it."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from modelyard.client import Client
from modelyard.v1 import training_job_pb2 as pb

from .output import err

_TRAINING_STATES = {"RUNNING", "CANCELLING"}
"""While the job is in one of these the bar moves, and says for how long at most."""
STATE_STYLES = {"SUCCEEDED": "green", "FAILED": "red", "CANCELLED": "yellow", "CANCELLING": "yellow", "QUEUED": "dim"}


def state_name(state: pb.TrainingJob.State.ValueType) -> str:
    """The state without its enum's prefix."""
    return pb.TrainingJob.State.Name(state).removeprefix("STATE_")


def follow(client: Client, name: str, console: Console = err) -> pb.TrainingJob:
    """Draws the job until it ends; answers it as it ended."""
    with JobView(console) as view:
        for event in client.training.watch(name):
            view.show(event)
    return client.training.get(name)


class JobView:
    """Draws events as they come. A context manager, since the bar owns the terminal's last line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("  training"),
            BarColumn(bar_width=30),
            TextColumn("epoch {task.completed:.0f}/{task.total:.0f}"),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[eta]}", style="dim"),
            console=console,
            transient=False,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._bar.stop()

    def show(self, event: pb.TrainingJobEvent) -> None:
        """Draws one event."""
        kind = event.WhichOneof("payload")
        if kind == "state_change":
            self._show_state(event)
        elif kind == "progress":
            self._show_progress(event.progress)
        elif kind == "log_line":
            self._console.print(f"  [dim]{escape(event.log_line.text)}[/]", highlight=False, emoji=False)
        elif kind == "evaluation":
            self._console.print(evaluation_table(event.evaluation))

    def _show_state(self, event: pb.TrainingJobEvent) -> None:
        change = event.state_change
        state = state_name(change.state)
        attempt = f" [dim](attempt {event.attempt})[/]" if event.attempt > 1 else ""
        more = f" {change.model_version}" if change.model_version else ""
        more += f" [dim]{escape(change.message)}[/]" if change.message else ""
        shown = f"[{STATE_STYLES.get(state, 'cyan')}]{state.lower()}[/]{attempt}{more}"
        self._console.print(f"  {shown}", highlight=False, emoji=False)
        if self._task is not None and state not in _TRAINING_STATES:
            self._bar.update(self._task, eta="")

    def _show_progress(self, progress: pb.TrainingProgress) -> None:
        loss = f"{progress.training_loss:.4g} (validation {progress.validation_loss:.4g})"
        seconds = progress.remaining.ToSeconds() if progress.HasField("remaining") else None
        eta = "" if seconds is None else f"at most {seconds // 60}:{seconds % 60:02d} left"
        if self._task is None:
            self._task = self._bar.add_task("training", total=progress.max_epochs, loss=loss, eta=eta)
        self._bar.update(self._task, completed=progress.epoch, total=progress.max_epochs, loss=loss, eta=eta)


def evaluation_table(evaluation: pb.Evaluation) -> Table:
    """The metrics beside the baseline's."""
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    table.add_column(f"  on {evaluation.test_rows} test rows")
    table.add_column("this model", justify="right")
    table.add_column(evaluation.baseline or "baseline", justify="right")
    for metric in sorted(evaluation.metrics):
        baseline = evaluation.baseline_metrics.get(metric)
        table.add_row(f"  {metric}", f"{evaluation.metrics[metric]:.4f}", "" if baseline is None else f"{baseline:.4f}")
    return table
