"""`modelyard models …`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf.json_format import ParseDict
from rich.text import Text

from modelyard.client import Client
from modelyard.v1.model_pb2 import ModelVersion, ServingConfig
from modelyard.v1.tensor_pb2 import DataType, TensorSpec

from .output import JsonFlag, as_dict, errors_explained, last_part, out, print_json, print_table, size, styled, when
from .traffic import AliasOption, ModelArgument, ReasonOption, traffic_text

app = typer.Typer(help="Models, their versions and what is served.", no_args_is_help=True)


class Batching(StrEnum):
    """Whether requests are computed together."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


_BATCHING = {
    Batching.AUTO: ServingConfig.BATCHING_UNSPECIFIED,
    Batching.ON: ServingConfig.BATCHING_ON,
    Batching.OFF: ServingConfig.BATCHING_OFF,
}


@app.command("list")
def list_models(as_json: JsonFlag = False) -> None:
    """List models with the version each alias points to."""
    with errors_explained(), Client() as client:
        models = list(client.models.list())
        if as_json:
            print_json(models)
            return
        print_table(
            ["MODEL", "VERSIONS", "ALIASES", "CHANGED"],
            [
                [
                    last_part(model.name),
                    str(model.latest_version),
                    ", ".join(f"{alias} → {version}" for alias, version in sorted(model.aliases.items())),
                    when(model.update_time),
                ]
                for model in models
            ],
            empty="no models yet: modelyard train submit --recipe diabetes",
        )


@app.command()
def show(model: ModelArgument, as_json: JsonFlag = False) -> None:
    """Show a model and its versions."""
    with errors_explained(), Client() as client:
        found = client.models.get(model)
        versions = list(client.models.versions(model))
        if as_json:
            print_json({"model": as_dict(found), "versions": [as_dict(version) for version in versions]})
            return
        aliases: dict[int, list[str]] = {}
        for alias, number in sorted(found.aliases.items()):
            aliases.setdefault(number, []).append(alias)
        out.print(Text.assemble((found.name, "bold"), f" {found.description}".rstrip()))
        for alias in sorted(found.aliases):
            shown = client.models.alias(model, alias)
            if shown.HasField("traffic"):
                out.print(f"{alias}: {traffic_text(shown.version, shown.traffic)}", highlight=False)
        if found.HasField("serving"):
            out.print(f"served with {_settings(found.serving)}", highlight=False)
        for signature, numbers in _by_signature(versions).items():
            out.print(f"{signature} (version {numbers})", markup=False, highlight=False, emoji=False)
        print_table(
            ["VERSION", "ALIAS", "DIGEST", "SIZE", "METRICS", "TRAINED BY", "CREATED"],
            [_version_row(version, aliases.get(version.version, [])) for version in versions],
            empty="no versions yet",
        )


Setting = Annotated[int | None, typer.Option(min=0, help="0: each pod decides by itself.", show_default=False)]


@app.command()
def configure(
    model: ModelArgument,
    max_batch_size: Setting = None,
    queue_size: Setting = None,
    runners: Setting = None,
    graph_threads: Setting = None,
    batching: Annotated[Batching | None, typer.Option(help="Compute requests together?", show_default=False)] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Begin with everything decided by the pods.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Set how pods serve a model. They load its versions anew beside the old ones: no request fails."""
    given = {
        "max_batch_size": max_batch_size, "queue_size": queue_size, "runners": runners,
        "graph_threads": graph_threads, "batching": None if batching is None else _BATCHING[batching],
    }  # fmt: skip
    settings = {name: value for name, value in given.items() if value is not None}
    if not settings and not reset:
        raise typer.BadParameter("name at least one setting, or --reset")
    with errors_explained(), Client() as client:
        changed = client.models.configure(
            model, ParseDict(settings, ServingConfig()), only=() if reset else list(settings)
        )
        if as_json:
            print_json(changed)
        else:
            out.print(f"{model}: {_settings(changed.serving)}", highlight=False)


def _settings(serving: ServingConfig) -> str:
    """In words; empty settings are the pods' own choice."""
    found = [f"{name} {value}" for name, value in as_dict(serving).items()]
    return ", ".join(found).replace("BATCHING_", "").lower() or "each pod decides by itself"


def _by_signature(versions: list[ModelVersion]) -> dict[str, str]:
    """The numbers of the versions that take and give the same tensors, in the order in which they come."""
    found: dict[str, list[str]] = {}
    for version in versions:
        found.setdefault(signature_text(version), []).append(str(version.version))
    return {signature: ", ".join(numbers) for signature, numbers in found.items()}


def _version_row(version: ModelVersion, aliases: list[str]) -> list[str | Text]:
    metrics = ", ".join(f"{name} {value:.3f}" for name, value in sorted(version.evaluation.metrics.items()))
    return [
        str(version.version),
        styled(", ".join(aliases), "green"),
        version.digest[:12],
        size(version.size_bytes),
        metrics,
        last_part(version.training_job),
        when(version.create_time),
    ]


def signature_text(version: ModelVersion) -> str:
    """The tensors that the version takes and gives, in words."""
    return f"{_tensors(version.inputs)} → {_tensors(version.outputs)}"


def _tensors(specs: object) -> str:
    return ", ".join(_tensor(spec) for spec in specs)  # type: ignore[attr-defined]


def _tensor(spec: TensorSpec) -> str:
    shape = ", ".join("?" if size < 0 else str(size) for size in spec.shape)
    return f"{spec.name} {DataType.Name(spec.data_type).removeprefix('DATA_TYPE_')}[{shape}]"


@app.command()
def rollback(
    model: ModelArgument, alias: AliasOption = "live", reason: ReasonOption = "", as_json: JsonFlag = False
) -> None:
    """Point an alias back to the version it had before its last move."""
    with errors_explained(), Client() as client:
        moved = client.models.rollback(model, alias=alias, reason=reason)
        if as_json:
            print_json(moved)
        else:
            out.print(f"{model} {alias} → {traffic_text(moved.version, moved.traffic)}", highlight=False)


@app.command()
def history(
    model: ModelArgument,
    alias: Annotated[str, typer.Option(help="Only this alias.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Show every move of a model's aliases, newest first."""
    with errors_explained(), Client() as client:
        changes = list(client.models.history(model, alias=alias, limit=limit))
        if as_json:
            print_json(changes)
            return
        print_table(
            ["#", "WHEN", "ALIAS", "FROM", "TO", "BY", "WHY"],
            [
                [
                    str(change.sequence),
                    when(change.time),
                    change.alias,
                    traffic_text(change.previous_version, change.previous_traffic),
                    traffic_text(change.version, change.traffic),
                    change.actor,
                    change.reason,
                ]
                for change in changes
            ],
            empty="no alias was ever moved",
        )
