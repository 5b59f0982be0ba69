"""Puts the commands together."""

from __future__ import annotations

from typing import Annotated

import typer

import modelyard

from . import (
    cluster,
    conformance,
    datasets,
    job_tables,
    models,
    predictions,
    promotion,
    publication,
    queues,
    tenants,
    tokens,
    traffic,
    training,
)
from .output import out

app = typer.Typer(
    name="modelyard",
    help="Train models as jobs, keep them as versions, serve them over gRPC.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    add_completion=True,
)
training.app.command("list")(job_tables.list_jobs)
training.app.command("explain")(job_tables.explain)
training.app.command("attempts")(job_tables.attempts)
training.app.command("progress")(job_tables.progress)
models.app.command("publish")(publication.publish)
models.app.command("promote")(promotion.promote)
models.app.command("pods")(promotion.pods)
models.app.command("traffic")(traffic.traffic)
models.app.command("shadow")(traffic.shadow)
app.add_typer(training.app, name="train")
app.add_typer(models.app, name="models")
app.add_typer(datasets.app, name="datasets")
app.add_typer(queues.queues_app, name="queues")
app.add_typer(queues.workers_app, name="workers")
app.add_typer(tenants.app, name="tenants")
app.add_typer(tokens.app, name="token")
app.add_typer(conformance.app, name="conformance")
app.command("predict")(predictions.predict)
app.command("up")(cluster.up)
app.command("down")(cluster.down)
app.command("status")(cluster.status)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(modelyard.__version__, highlight=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Train models as jobs, keep them as versions, serve them over gRPC.

    The cluster is MODELYARD_ADDRESS with MODELYARD_TOKEN, or else the one that `modelyard up` runs on this machine.
    """


def main() -> None:
    """The `modelyard` command."""
    app()
