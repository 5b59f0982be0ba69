"""`modelyard queues` and `modelyard workers`: who waits and who works."""

from __future__ import annotations

import typer
from rich.text import Text

from modelyard.client import Client
from modelyard.v1.training_service_pb2 import Worker

from .durations import clock, since
from .job_lines import harmless, hour
from .output import JsonFlag, errors_explained, last_part, print_json, print_table, styled, when

queues_app = typer.Typer(help="The queues that training jobs wait in.", no_args_is_help=True)
workers_app = typer.Typer(help="The workers that train.", no_args_is_help=True)

_STYLES = {"IDLE": "green", "BUSY": "cyan", "STOPPING": "yellow"}


@queues_app.command("list")
def list_queues(as_json: JsonFlag = False) -> None:
    """List the queues; the first one is the default. All tenants are counted."""
    with errors_explained(), Client() as client:
        queues = client.training.queues()
        if as_json:
            print_json(queues)
            return
        print_table(
            ["QUEUE", "WAITING", "RUNNING", "RUNNING AT MOST", "WORKERS", "OF THEM IDLE"],
            [
                [
                    last_part(queue.name),
                    str(queue.waiting),
                    str(queue.running),
                    str(queue.max_running or "–"),
                    str(queue.workers),
                    str(queue.idle_workers),
                ]
                for queue in queues
            ],
            empty="there is no queue",
        )


@workers_app.command("list")
def list_workers(as_json: JsonFlag = False) -> None:
    """List the workers that reported lately, with what each does."""
    with errors_explained(), Client() as client:
        workers = client.training.workers()
        if as_json:
            print_json(workers)
            return
        print_table(
            ["WORKER", "NODE", "QUEUES", "STATE", "JOB", "HARDWARE", "STARTED", "REPORTED"],
            [_row(worker) for worker in workers],
            empty="no worker has reported lately",
        )


def _row(worker: Worker) -> list[str | Text]:
    return [
        harmless(worker.worker),
        harmless(worker.node),
        ", ".join(worker.queues),
        _state(worker),
        last_part(worker.training_job),
        harmless(worker.hardware),
        when(worker.start_time),
        f"{clock(since(worker.report_time))} ago" if worker.HasField("report_time") else "–",
    ]


def _state(worker: Worker) -> Text:
    state = worker.state
    name = Worker.State.Name(state).removeprefix("STATE_") if state in Worker.State.values() else str(state)
    shown = styled(name.lower(), _STYLES.get(name, "yellow"))
    if worker.HasField("excluded_until"):
        shown.append(f" (its node gets no jobs until {hour(worker.excluded_until)})", "red")
    return shown
