"""`modelyard train …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from modelyard.client import Client
from modelyard.client.training import State
from modelyard.training import recipes
from modelyard.v1.training_job_pb2 import TrainingJob
from modelyard.v1.training_spec_pb2 import TrainingSpec

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
    print_table,
    read_text,
    styled,
    when,
)
from .training_view import STATE_STYLES, follow, state_name

app = typer.Typer(help="Submit training jobs and follow them.", no_args_is_help=True)

JobArgument = Annotated[str, typer.Argument(help="The job, `trainingJobs/ID` or just ID.", metavar="JOB")]


@app.command()
def submit(
    file: Annotated[Path | None, typer.Argument(help="A training spec as YAML or JSON.", metavar="FILE")] = None,
    recipe: Annotated[
        str | None, typer.Option(help=f"A built-in spec instead of FILE: {', '.join(recipes.builtin_recipe_names())}.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Train on this dataset instead of the spec's.")] = None,
    model: Annotated[str | None, typer.Option(help="Publish to this model instead of the spec's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Use this seed instead of the spec's.")] = None,
    request_id: Annotated[
        str | None, typer.Option(help="Makes the submission repeatable: the same id answers the same job.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check everything, submit nothing.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job to its end.")] = False,
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
        job = client.training.submit(spec, request_id=request_id, validate_only=check)
        if watch and not check:
            _watch(client, job.name, as_json=as_json)
        elif as_json:
            print_json(job)
        else:
            parameters = f"{job.parameter_count:,} parameters"
            out.print("the spec is good: " + parameters if check else job.name, highlight=False)
            if not check:
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
def watch_job(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Follow a job to its end. Exit code 0 if it succeeded, 1 if it failed or was cancelled.

    With --json every event is one line.
    """
    with errors_explained(), Client() as client:
        _watch(client, _name(job), as_json=as_json)


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
        for event in client.training.logs(_name(job), follow=follow_job, attempt=attempt):
            if as_json:
                print_json_line(event)
            else:
                out.print(event.log_line.text, markup=False, highlight=False, emoji=False)


def _watch(client: Client, name: str, *, as_json: bool) -> None:
    if as_json:
        for event in client.training.watch(name):
            print_json_line(event)
        job = client.training.get(name)
    else:
        job = follow(client, name)
    if job.state != State.STATE_SUCCEEDED:
        raise typer.Exit(Exit.FAILED)


@app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List jobs, newest first."""
    with errors_explained(), Client() as client:
        states = [_state(name) for name in state or ()]
        jobs = list(client.training.list(states=states, limit=limit))
        if as_json:
            print_json(jobs)
            return
        print_table(
            ["JOB", "STATE", "MODEL", "DATASET", "SUBMITTED", "RESULT"],
            [_row(job) for job in jobs],
            empty="no jobs yet: modelyard train submit --recipe diabetes",
        )


def _row(job: TrainingJob) -> list[str | Text]:
    state = state_name(job.state)
    result = last_part(job.model_version) if job.model_version else job.failure_message.partition("\n")[0][:60]
    return [
        last_part(job.name),
        styled(state, STATE_STYLES.get(state, "cyan")),
        last_part(job.spec.model),
        last_part(job.spec.dataset),
        when(job.create_time),
        f"version {result}" if job.model_version else result,
    ]


def _state(name: str) -> State.ValueType:
    try:
        return State.Value(f"STATE_{name.upper()}")
    except ValueError:
        known = ", ".join(key.removeprefix("STATE_") for key in State.keys()[1:])
        raise ValueError(f"{name!r} is no state; expected one of {known}") from None


@app.command()
def show(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Show one job with its spec, progress and result."""
    with errors_explained(), Client() as client:
        found = client.training.get(_name(job))
        if as_json:
            print_json(found)
        else:
            out.print(found, highlight=False, markup=False)


@app.command()
def cancel(job: JobArgument, as_json: JsonFlag = False) -> None:
    """Cancel a job: a waiting one at once, a running one as soon as its worker hears of it."""
    with errors_explained(), Client() as client:
        answer = client.training.cancel(_name(job))
        if as_json:
            print_json(answer)
        else:
            out.print(f"{answer.name} is {state_name(answer.state)}", highlight=False)


def _name(job: str) -> str:
    return job if job.startswith("trainingJobs/") else f"trainingJobs/{job}"
