"""How a job ended, for people and as an exit code."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from modelyard.v1.training_job_pb2 import Evaluation, TrainingJob

from .durations import between, clock
from .job_lines import STATE_STYLES, State, harmless, place, reason_name, state_name
from .output import Exit, last_part, out

_EXITS = {State.STATE_SUCCEEDED: Exit.OK, State.STATE_CANCELLED: Exit.CANCELLED, State.STATE_PAUSED: Exit.PAUSED}


def exit_code(job: TrainingJob) -> Exit:
    """0 succeeded, 7 cancelled, 8 paused, 1 failed or anything else."""
    return _EXITS.get(job.state, Exit.FAILED)


def show_outcome(job: TrainingJob, console: Console) -> Exit:
    """Prints the metrics and how it ended; the published version goes to standard output, alone."""
    if job.HasField("evaluation"):
        console.print(evaluation_table(job.evaluation))
    console.print(_verdict(job), highlight=False, emoji=False)
    hint = _hint(job)
    if hint:
        console.print(f"[dim]{hint}[/]", highlight=False)
    if job.model_version:
        out.print(job.model_version, markup=False, highlight=False)
    return exit_code(job)


def _verdict(job: TrainingJob) -> Text:
    state = state_name(job.state)
    text = Text.assemble((state.lower(), f"bold {STATE_STYLES.get(state, 'cyan')}"), _duration(job))
    if job.state == State.STATE_FAILED:
        text.append(f": {reason_name(job.failure_reason)}", "red")
        text.append(f": {harmless(job.failure_message)}" if job.failure_message else "")
    elif job.state == State.STATE_PAUSED:
        saved = f" at {place(job.checkpoint)}" if job.checkpoint.step else " before its first checkpoint"
        text.append(saved)
    retries = _retries(job)
    return text.append(f" ({retries})", "dim") if retries else text


def _duration(job: TrainingJob) -> str:
    if not (job.HasField("finish_time") and job.HasField("create_time")):
        return ""
    waited = f", {clock(between(job.start_time, job.finish_time))} of it training" if job.HasField("start_time") else ""
    return f" {clock(between(job.create_time, job.finish_time))} after it was submitted{waited}"


def _retries(job: TrainingJob) -> str:
    parts = [
        f"{count} {what}"
        for count, what in (
            (job.infrastructure_retries, "lost to the platform"),
            (job.preemptions, "given up for others, a stop or a pause"),
            (job.user_retries, "failed and tried again"),
        )
        if count
    ]
    return f"{job.attempt} attempts: {', '.join(parts)}" if parts else ""


def _hint(job: TrainingJob) -> str:
    if job.state == State.STATE_FAILED:
        return f"what it printed: modelyard train logs {last_part(job.name)}"
    return f"go on with it: modelyard train resume {last_part(job.name)}" if job.state == State.STATE_PAUSED else ""


def evaluation_table(evaluation: Evaluation) -> Table:
    """The metrics beside the baseline's."""
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    table.add_column(f"  on {evaluation.test_rows} test rows")
    table.add_column("this model", justify="right")
    table.add_column(escape(harmless(evaluation.baseline)) or "baseline", justify="right")
    for metric in sorted(evaluation.metrics):
        baseline = evaluation.baseline_metrics.get(metric)
        table.add_row(f"  {metric}", f"{evaluation.metrics[metric]:.4f}", "" if baseline is None else f"{baseline:.4f}")
    return table
