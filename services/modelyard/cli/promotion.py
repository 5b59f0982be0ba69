"""`modelyard models promote` and `pods`: a version on its way to every pod."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from modelyard.client import Client, RemoteError
from modelyard.v1.model_service_pb2 import PodReceipt, PromoteModelVersionResponse
from modelyard.v1.pod_pb2 import Pod, PodVersion

from .output import Exit, JsonFlag, complain, err, errors_explained, last_part, out, print_json, print_table, styled
from .traffic import AliasOption, ModelArgument, ReasonOption, model_id

_STYLES = {"PENDING": "dim", "LOADING": "cyan", "SERVING": "green", "FAILED": "red"}


def promote(
    model: ModelArgument,
    version: Annotated[int, typer.Argument(min=1, help="The version's number.")],
    alias: AliasOption = "live",
    reason: ReasonOption = "",
    wait: Annotated[float, typer.Option(min=0, max=3600, help="Seconds to wait for the pods.")] = 60.0,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Move the alias and look no further.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the alias moved if the version is broken.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Point an alias to a version, and watch every pod come to serve it.

    Exit code 0 when all do, 1 if the version is broken (the alias is back where it was), 5 if they do not yet.
    """
    with errors_explained(), Client() as client:
        if no_wait:
            moved = client.models.set_alias(model, version, alias=alias, reason=reason)
            if as_json:
                print_json(moved)
            else:
                out.print(f"{model} {alias} → {moved.version}", highlight=False)
            return
        steps = client.models.promotion(model, version, alias=alias, reason=reason, wait_s=wait, keep_when_broken=keep)
        try:
            receipt = _last(steps) if as_json else _draw(steps)
        except RemoteError as error:
            if error.reason != "VERSION_BROKEN":
                raise
            complain(error.message)
            raise typer.Exit(Exit.FAILED) from error
        if as_json:
            print_json(receipt)
        else:
            out.print(f"{model} {alias} → {version}, served by {_counted(len(receipt.pods))}", highlight=False)


def _counted(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"


def _last(steps: Iterable[PromoteModelVersionResponse]) -> PromoteModelVersionResponse:
    *_before, receipt = steps
    return receipt


def _draw(steps: Iterable[PromoteModelVersionResponse]) -> PromoteModelVersionResponse:
    """A line per pod, drawn anew with every step; answers the last one."""
    receipt: PromoteModelVersionResponse | None = None
    try:
        with Live(console=err, auto_refresh=False) as live:
            for receipt in steps:
                live.update(_table(receipt), refresh=True)
    finally:
        if receipt is not None and not err.is_terminal:
            err.line()  # rich ends the last drawing's line in terminals only
    return receipt or PromoteModelVersionResponse()


def _table(receipt: PromoteModelVersionResponse) -> Table:
    table = Table.grid(padding=(0, 2))
    for pod in receipt.pods:
        table.add_row(Text(f"  {pod.display_name}"), _styled(pod.state), _detail(pod))
    if not receipt.pods:
        table.add_row("  [yellow]no pod is alive[/]")
    return table


def _detail(pod: PodReceipt) -> Text:
    if pod.reason or not pod.digest:
        return Text(pod.reason)
    return styled(f"{pod.digest[:12]}, loaded in {_milliseconds(pod)}", "dim")


def _styled(state: PodVersion.State.ValueType) -> Text:
    name = PodVersion.State.Name(state).removeprefix("STATE_") if state in PodVersion.State.values() else str(state)
    return styled(name.lower(), _STYLES.get(name, "yellow"))


def _milliseconds(version: PodReceipt | PodVersion) -> str:
    return f"{version.load_time.ToNanoseconds() / 1e6:.0f} ms"


def pods(
    model: Annotated[str, typer.Argument(help="Only this model.", metavar="[MODEL]", callback=model_id)] = "",
    as_json: JsonFlag = False,
) -> None:
    """Show the inference pods and what each of them serves."""
    with errors_explained(), Client() as client:
        found = list(client.models.pods(model))
        if as_json:
            print_json(found)
            return
        print_table(
            ["POD", "MODEL", "VERSION", "ALIASES", "STATE", "DIGEST", "LOADED IN", "WHY"],
            [row for pod in found for row in _rows(pod)],
            empty="no pod is alive",
        )


def _rows(pod: Pod) -> list[list[str | Text]]:
    name = Text(pod.display_name)
    if pod.state == Pod.STATE_DRAINING:
        name.append(" (draining)", "yellow")
    if not pod.versions:
        return [[name, *["–"] * 6, ""]]
    return [
        [
            name,
            version.name.split("/")[1],
            last_part(version.name),
            ", ".join(version.aliases),
            _styled(version.state),
            version.digest[:12],
            _milliseconds(version) if version.HasField("load_time") else "",
            version.reason,
        ]
        for version in pod.versions
    ]
