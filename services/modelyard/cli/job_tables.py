"""`modelyard train list`, `explain`, `attempts` and `progress`: jobs and their lives in tables."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from modelyard.client import Client
from modelyard.v1.training_job_pb2 import TrainingAttempt, TrainingJob
from modelyard.v1.training_service_pb2 import ListTrainingProgressResponse, TrainingJobExplanation

from .durations import between, clock, since, span, until
from .explanations import estimate
from .job_lines import STATE_STYLES, State, cause_name, harmless, hour, state_name
from .loss_curve import LossCurve
from .output import JsonFlag, err, errors_explained, given_id, last_part, out, print_json, print_table, styled, when
from .plotting import caption, plot
from .training import JobArgument, name_of

_CURVE_ROWS = 12
_REASON_LENGTH = 60


def list_jobs(
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    model: Annotated[str, typer.Option(help="Only jobs that publish to this model.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """List jobs, newest first."""
    with errors_explained(), Client() as client:
        states = [_state(name) for name in state or ()]
        publishes = f"models/{given_id(model, 'models')}" if model else ""
        jobs = list(client.training.list(states=states, model=publishes, limit=limit))
        if as_json:
            print_json(jobs)
            return
        print_table(
            ["JOB", "STATE", "QUEUE", "ATTEMPT", "MODEL", "DATASET", "SUBMITTED", "HOW IT STANDS"],
            [_row(job) for job in jobs],
            empty="no jobs yet: modelyard train submit --recipe diabetes",
        )


def _row(job: TrainingJob) -> list[str | Text]:
    state = state_name(job.state)
    return [
        last_part(job.name),
        styled(state, STATE_STYLES.get(state, "cyan")),
        job.scheduling.queue or "–",
        str(job.attempt or "–"),
        last_part(job.spec.model),
        last_part(job.spec.dataset),
        when(job.create_time),
        standing(job),
    ]


def standing(job: TrainingJob) -> str:
    """What matters most of a job in its state: how long it waits, how far it is, or what came of it."""
    if job.model_version:
        return f"version {last_part(job.model_version)}"
    if job.state == State.STATE_QUEUED:
        again = job.HasField("retry_time") and until(job.retry_time)
        # While a job waits nothing else changes it.
        return f"tried again at {hour(job.retry_time)}" if again else f"waits for {clock(since(job.update_time))}"
    if job.state == State.STATE_FAILED:
        return harmless(job.failure_message.partition("\n")[0])[:_REASON_LENGTH]
    if not job.progress.max_epochs or job.state == State.STATE_CANCELLED:
        return ""
    far = f"epoch {job.progress.epoch:,}/{job.progress.max_epochs:,}"
    left = job.state == State.STATE_RUNNING and job.progress.HasField("remaining")
    return f"{far}, at most {span(job.progress.remaining)} left" if left else far


def _state(name: str) -> State.ValueType:
    try:
        return State.Value(f"STATE_{name.upper()}")
    except ValueError:
        known = ", ".join(key.removeprefix("STATE_") for key in State.keys()[1:])
        raise ValueError(f"{name!r} is no state; expected one of {known}") from None


def explain(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Show why a job waits: what is ahead of it, what it lacks, and when it will probably start."""
    with errors_explained(), Client() as client:
        explanation = client.training.explain(name_of(job))
        if as_json:
            print_json(explanation)
        else:
            _print_explanation(explanation)


def _print_explanation(explanation: TrainingJobExplanation) -> None:
    job = explanation.training_job
    state = state_name(job.state)
    queue = f" in queue {job.scheduling.queue}" if job.scheduling.queue else ""
    waited = f", for {span(explanation.waited)}" if explanation.HasField("waited") else ""
    out.print(Text.assemble(f"{job.name} is ", (state, STATE_STYLES.get(state, "cyan")), f"{queue}{waited}"))
    for reason in explanation.reasons:
        name = reason.Kind.Name(reason.kind) if reason.kind in reason.Kind.values() else str(reason.kind)
        told = Text.assemble(f"  {harmless(reason.message)} ", (f"({name.removeprefix('KIND_')})", "dim"))
        out.print(told)
    for line in _figures(explanation):
        out.print(f"  {line}", highlight=False, markup=False)


def _figures(explanation: TrainingJobExplanation) -> list[str]:
    if explanation.training_job.state != State.STATE_QUEUED:
        return [] if explanation.reasons else ["it does not wait"]
    ahead = f"{explanation.jobs_ahead} jobs go first, {explanation.tenant_jobs_ahead} of them your tenant's"
    return [
        ahead if explanation.jobs_ahead else "no job goes first",
        estimate(explanation) or "when it starts cannot be told",
    ]


def attempts(
    job: JobArgument,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Show who tried a job, for how long, from which step, and why each attempt ended; newest first."""
    with errors_explained(), Client() as client:
        found = list(client.training.attempts(name_of(job), limit=limit))
        if as_json:
            print_json(found)
            return
        print_table(
            ["ATTEMPT", "WORKER", "NODE", "BEGAN", "TOOK", "FROM STEP", "ENDED", "WHY"],
            [_attempt_row(one) for one in found],
            empty="no worker has taken it yet; `modelyard train explain` tells why",
        )


def _attempt_row(attempt: TrainingAttempt) -> list[str]:
    ended = attempt.HasField("end_time")
    took = between(attempt.start_time, attempt.end_time) if ended else since(attempt.start_time)
    return [
        str(attempt.attempt),
        harmless(attempt.worker),
        harmless(attempt.node),
        when(attempt.start_time),
        clock(took),
        f"{attempt.resumed_step:,}",
        cause_name(attempt.end_cause) or "runs",
        harmless(attempt.message),
    ]


def progress(
    job: JobArgument,
    points: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, evenly over its life.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show the course of a job's losses and speed; in a terminal with the curve."""
    with errors_explained(), Client() as client:
        found = client.training.progress(name_of(job), max_points=points)
        if as_json:
            print_json(found)
            return
        print_table(
            ["WHEN", "ATTEMPT", "EPOCH", "STEP", "TRAINING LOSS", "VALIDATION LOSS", "BEST", "ROWS/S"],
            [_point_row(point) for point in found],
            empty="it has not trained yet",
        )
        if err.is_terminal:
            _draw(client, name_of(job))


def _point_row(point: ListTrainingProgressResponse.Point) -> list[str]:
    shown = point.progress
    return [
        when(point.time),
        str(point.attempt),
        f"{shown.epoch:,}/{shown.max_epochs:,}",
        f"{shown.step:,}",
        f"{shown.training_loss:.6g}" if shown.epoch else "",
        f"{shown.validation_loss:.6g}" if shown.best_epoch else "",
        f"{shown.best_validation_loss:.6g}" if shown.best_epoch else "",
        f"{shown.rows_per_second:,.0f}",
    ]


def _draw(client: Client, name: str) -> None:
    """The curve, with a point for each of the terminal's dots, however few rows the table has."""
    curve, columns, ascii_only = LossCurve(), err.width - 1, err.options.ascii_only
    for point in client.training.progress(name, max_points=columns * 2):
        curve.add(point.progress)
    if len(curve) < 2:
        return
    lines = curve.lines()
    first, last = (f"epoch {epoch:,}" for epoch in curve.epochs)
    drawn = plot(lines, columns, _CURVE_ROWS, ascii_only=ascii_only)
    for row in [*drawn, caption(lines, first, last, columns, ascii_only=ascii_only)] if drawn else []:
        err.print(row, highlight=False, emoji=False)
