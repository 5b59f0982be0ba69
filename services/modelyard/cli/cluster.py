"""`modelyard up`, `down` and `status`."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from modelyard.client import Client, RemoteError
from modelyard.local import state
from modelyard.v1.pod_pb2 import Pod

from .output import Exit, JsonFlag, complain, err, errors_explained, out, print_json, print_table, styled

if TYPE_CHECKING:
    from modelyard.local.cluster import ClusterOptions
    from modelyard.local.supervision import ProgramEvent

Entries: TypeAlias = list[dict[str, Any]] | None
"""What was found, as plain data; None where it could not be asked for (no right to, or a service is away)."""

DEFAULT_DATA_DIR = Path("~/.local/share/modelyard")

DataDirOption = Annotated[
    Path, typer.Option("--data-dir", envvar="MODELYARD_DATA_DIR", help="Where everything is kept.", file_okay=False)
]


def up(
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The door's port on loopback; 0 takes a free one.")
    ] = 8500,
    open_predict: Annotated[
        bool, typer.Option("--open", help="Anybody on this machine may predict without a token.")
    ] = False,
) -> None:
    """Run a whole cluster on this machine until Ctrl-C. A second `up` on the same data goes on where it was."""
    # What a cluster needs is an extra: the command must work without it against a cluster elsewhere.
    try:
        from modelyard.local import cluster
    except ModuleNotFoundError as error:
        complain(f"`modelyard up` needs {error.name}: pip install 'modelyard[local]'")
        raise typer.Exit(Exit.USAGE) from error
    try:
        asyncio.run(_up(cluster.ClusterOptions(data_dir.expanduser(), port, open_predict)))
    except cluster.ClusterBusy as error:
        complain(str(error))
        raise typer.Exit(Exit.CONFLICT) from error
    except (cluster.StartFailed, cluster.RedisMissing) as error:
        complain(str(error))
        raise typer.Exit(Exit.FAILED) from error


async def _up(options: ClusterOptions) -> None:
    """Runs the cluster until a signal; one that comes while it starts ends the start."""
    loop, running = asyncio.get_running_loop(), asyncio.create_task(_run(options))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # SIGHUP: the terminal was closed
        loop.add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        err.print("stopped")


async def _run(options: ClusterOptions) -> None:
    from modelyard.local.cluster import local_cluster

    began = time.monotonic()
    async with local_cluster(options, _show) as running:
        err.print(f"[bold green]ready[/] in {time.monotonic() - began:.1f} s: {running.address}", highlight=False)
        err.print(styled(f"data in {running.data_dir}, logs in {running.data_dir}/logs; Ctrl-C stops it", "dim"))
        await asyncio.Event().wait()


def _show(event: ProgramEvent) -> None:
    """A line per program and happening."""
    style = {"healthy": "green", "ended": "red"}.get(event.happening.value, "dim")
    detail = f" [dim]{event.detail}[/]" if event.detail else ""
    err.print(
        f"  [{style}]{event.program:<10} {event.happening.value:<8}[/] {event.seconds:5.1f} s  "
        f"[dim]process {event.pid}[/]{detail}",
        highlight=False,
    )


def down(data_dir: DataDirOption = DEFAULT_DATA_DIR) -> None:
    """Stop the cluster that `up` runs on this data."""
    running = state.read(data_dir.expanduser())
    if running is None:
        err.print(styled(f"no cluster runs on {data_dir}", "dim"))
        return
    if not state.stop(running):
        complain(f"the cluster (process {running.pid}) has not stopped")
        raise typer.Exit(Exit.FAILED)
    err.print("stopped")


def status(as_json: JsonFlag = False) -> None:
    """Show the cluster's services and what is served. Exit code 0 if every service can be called, else 5."""
    with errors_explained(), Client() as client:
        services = client.health()
        served = _served(client) if services.get("inference.GRPCInferenceService") == "SERVING" else None
        metrics = _metrics(client.address)
        pods = _pods(client)
        if as_json:
            document = {"address": client.address, "services": services, "served": served, "pods": pods}
            print_json({**document, "metrics": metrics})
        else:
            _print_status(client.address, services, served, metrics)
            _print_pods(pods)
        if set(services.values()) != {"SERVING"}:
            raise typer.Exit(Exit.UNAVAILABLE)


_UNSEEN = "{} cannot be seen: no token, one without the right, or a service that is away"


def _served(client: Client) -> Entries:
    """Every version on the pod that answers."""
    try:
        index = client.predictions.served()
    except RemoteError:
        return None
    return [
        {"model": model.name, "version": model.version, "state": model.state, "reason": model.reason} for model in index
    ]


def _pods(client: Client) -> Entries:
    """The pods that the registry knows."""
    try:
        pods = list(client.models.pods())
    except RemoteError:
        return None
    return [
        {"pod": pod.display_name, "draining": pod.state == Pod.STATE_DRAINING, "versions": len(pod.versions)}
        for pod in pods
    ]


def _print_pods(pods: Entries) -> None:
    out.print()
    print_table(
        ["POD", "VERSIONS", "STATE"],
        [[entry["pod"], str(entry["versions"]), "draining" if entry["draining"] else "live"] for entry in pods or ()],
        empty=_UNSEEN.format("which pods there are") if pods is None else "no pod has told of itself",
    )


def _metrics(address: str) -> dict[str, str]:
    """Where the programs' metrics are; known only of a cluster on this machine."""
    local = state.discover()
    if local is None or local.address != address:
        return {}
    return {program: f"http://{listens}/metrics" for program, listens in local.metrics.items()}


def _print_status(address: str, services: dict[str, str], served: Entries, metrics: dict[str, str]) -> None:
    out.print(f"[bold]{address}[/]", highlight=False)
    print_table(
        ["SERVICE", "STATE"],
        [[name, styled(is_, "green" if is_ == "SERVING" else "red")] for name, is_ in services.items()],
        empty="",
    )
    out.print()
    print_table(
        ["SERVED MODEL", "VERSION", "STATE", "WHY"],
        [[entry["model"], entry["version"], entry["state"], entry["reason"]] for entry in served or ()],
        empty=_UNSEEN.format("what is served") if served is None else "nothing is served yet",
    )
    if metrics:
        out.print()
        print_table(["PROGRAM", "METRICS"], [[program, url] for program, url in metrics.items()], empty="")
