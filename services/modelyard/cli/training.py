"""`modelyard train …`: submit, follow, stop and go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from modelyard.client import Client
from modelyard.training import recipes
from modelyard.v1.training_job_pb2 import TrainingJob
from modelyard.v1.training_spec_pb2 import TrainingSpec

from .durations import seconds
from .job_lines import state_name
from .output import (
    Exit,
    JsonFlag,
    err,
    errors_explained,
    given_id,
    last_part,
    out,
    print_json,
    print_json_line,
    read_text,
)
from .watching import watch, watch_as_json

app = typer.Typer(help="Submit training jobs and follow them.", no_args_is_help=True)

JobArgument = Annotated[str, typer.Argument(help="The job, `trainingJobs/ID` or just ID.", metavar="JOB")]
PlainFlag = Annotated[bool, typer.Option("--plain", help="Plain lines, as when the output is no terminal.")]


@app.command()
def submit(
    file: Annotated[Path | None, typer.Argument(help="A training spec as YAML or JSON.", metavar="FILE")] = None,
    recipe: Annotated[
        str | None, typer.Option(help=f"A built-in spec instead of FILE: {', '.join(recipes.builtin_recipe_names())}.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Train on this dataset instead of the spec's.")] = None,
    model: Annotated[str | None, typer.Option(help="Publish to this model instead of the spec's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Use this seed instead of the spec's.")] = None,
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    queue: Annotated[str, typer.Option(help="The class of workers; default: the cluster's first queue.")] = "",
    priority: Annotated[
        int, typer.Option(min=-100, max=100, help="Higher goes first among your tenant's waiting jobs.")
    ] = 0,
    max_wait: Annotated[
        str | None, typer.Option(metavar="TIME", help="Fail if it has waited so long in one go, as in 30m or 12h.")
    ] = None,
    max_run: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop it when it has held workers for so long in sum.")
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, max=10, help="Try a failure of its own so often again; lost workers do not count.")
    ] = 0,
    request_id: Annotated[
        str | None, typer.Option(help="Makes the submission repeatable: the same id answers the same job.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check everything, submit nothing.")] = False,
    watch_it: Annotated[
        bool, typer.Option("--watch", help="Follow the job to its end, as `train watch` does.")
    ] = False,
    plain: PlainFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Submit a training job."""
    with errors_explained(), Client() as client:
        spec = _load(file, recipe)
        if dataset is not None:
            spec.dataset = f"datasets/{given_id(dataset, 'datasets')}"
        if model is not None:
            spec.model = f"models/{given_id(model, 'models')}"
        if seed is not None:
            spec.seed = seed
        job = client.training.submit(
            spec,
            display_name=name,
            queue=queue,
            priority=priority,
            max_queue_s=_limit(max_wait, "--max-wait"),
            max_run_s=_limit(max_run, "--max-run"),
            max_retries=retries,
            request_id=request_id,
            validate_only=check,
        )
        if watch_it and not check:
            _watch(client, job.name, as_json=as_json, plain=plain)
        elif as_json:
            print_json(job)
        else:
            _tell(job, checked=check)


def _limit(text: str | None, option: str) -> int | None:
    return None if text is None else seconds(text, f"for {option} a time")


def _tell(job: TrainingJob, *, checked: bool) -> None:
    parameters = f"{job.parameter_count:,} parameters"
    out.print("the spec is good: " + parameters if checked else job.name, highlight=False)
    if not checked:
        err.print(f"[dim]{parameters}; follow it with: modelyard train watch {last_part(job.name)}[/]")


def _load(file: Path | None, recipe: str | None) -> TrainingSpec:
    if (file is None) == (recipe is None):
        raise ValueError("give either a FILE or --recipe NAME")
    if file is not None:
        return recipes.load_recipe(read_text(file))
    if recipe not in recipes.builtin_recipe_names():
        raise ValueError(f"{recipe!r} is no recipe; expected one of {', '.join(recipes.builtin_recipe_names())}")
    return recipes.builtin_recipe(recipe)


@app.command("watch")
def watch_job(
    job: JobArgument,
    plain: PlainFlag = False,
    through_pauses: Annotated[
        bool, typer.Option("--through-pauses", help="Stay while the job is paused, instead of ending.")
    ] = False,
    after: Annotated[
        int, typer.Option(min=0, metavar="SEQUENCE", help="With --json: only events after this sequence number.")
    ] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Follow a job to its end, over any break of the connection.

    In a terminal: the loss curve, a bar with speed and time left, and above
    them what happens. With --json every event of the job's history is one
    line. Standard output gets only the published version, or the events.

    Exit codes: 0 succeeded, 1 failed, 7 cancelled, 8 paused; 3 no such job,
    4 no right to see it, 5 the cluster was out of reach for 15 minutes,
    130 Ctrl-C. The job does not care whether it is watched.
    """
    if after and not as_json:
        raise typer.BadParameter("--after goes with --json; without it, a late start draws what matters of the past")
    with errors_explained(), Client() as client:
        _watch(client, name_of(job), as_json=as_json, plain=plain, through_pauses=through_pauses, after=after)


def _watch(
    client: Client, name: str, *, as_json: bool, plain: bool = False, through_pauses: bool = False, after: int = 0
) -> None:
    if as_json:
        code = watch_as_json(client, name, after=after, through_pauses=through_pauses)
    else:
        code = watch(client, name, plain=plain, through_pauses=through_pauses)
    if code is not Exit.OK:
        raise typer.Exit(code)


@app.command()
def logs(
    job: JobArgument,
    follow_job: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Only the lines of this attempt.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Print the lines that the trainer printed, also when its worker is gone.

    With --json every line is one event with its time and attempt.
    """
    with errors_explained(), Client() as client:
        for event in client.training.logs(name_of(job), follow=follow_job, attempt=attempt):
            if as_json:
                print_json_line(event)
            else:
                out.print(event.log_line.text, markup=False, highlight=False, emoji=False)


@app.command()
def show(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Show one job with its spec, progress and result."""
    with errors_explained(), Client() as client:
        found = client.training.get(name_of(job))
        if as_json:
            print_json(found)
        else:
            out.print(found, highlight=False, markup=False)


@app.command()
def cancel(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Cancel a job: a waiting one at once, a running one as soon as its worker hears of it."""
    _steer(lambda client: client.training.cancel(name_of(job)), as_json)


@app.command()
def pause(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Stop a job so that it can go on later: its worker saves a checkpoint first and is free then."""
    _steer(lambda client: client.training.pause(name_of(job)), as_json)


@app.command()
def resume(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Put a paused job back into its queue; it goes on from its newest checkpoint."""
    _steer(lambda client: client.training.resume(name_of(job)), as_json)


@app.command()
def preempt(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Take a job's worker away for others: it saves a checkpoint and waits in its queue, behind what waits there."""
    _steer(lambda client: client.training.preempt(name_of(job)), as_json)


def _steer(call: Callable[[Client], TrainingJob], as_json: bool) -> None:
    with errors_explained(), Client() as client:
        answer = call(client)
        if as_json:
            print_json(answer)
        else:
            out.print(f"{answer.name} is {state_name(answer.state)}", highlight=False, markup=False)


def name_of(job: str) -> str:
    """The resource name of what somebody typed."""
    return job if job.startswith("trainingJobs/") else f"trainingJobs/{job}"
