"""`modelyard models publish`: an ONNX file from anywhere becomes a version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from modelyard.client import Client, RemoteError
from modelyard.v1.model_pb2 import ModelVersion

from .models import signature_text
from .output import JsonFlag, err, errors_explained, out, print_json, size
from .traffic import ModelArgument
from .uploading import upload_bar

_NO_ALIAS = "none"


def publish(
    model: ModelArgument,
    file: Annotated[Path, typer.Argument(help="An ONNX file.", metavar="FILE", exists=True, dir_okay=False)],
    external_data: Annotated[
        Path | None,
        typer.Option(
            help="The file with the weights, if the graph points to one; under that name.",
            metavar="FILE", exists=True, dir_okay=False,
        ),
    ] = None,
    alias: Annotated[str, typer.Option(help=f"Point this alias to it; {_NO_ALIAS}: leave all alone.")] = "live",
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A label of the version; may be repeated.")
    ] = None,
    request_id: Annotated[
        str | None,
        typer.Option(help="Makes the command repeatable: the same id answers the same version. Default: by content."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Publish an ONNX file as the next version of a model, which is made if it is missing.

    The graph is checked before anything moves. Repeating the command is
    harmless: an upload that broke goes on where it broke, and what is published
    already is answered again, its alias left where it is by now.
    """
    moved = "" if alias == _NO_ALIAS else alias
    files = [file] if external_data is None else [file, external_data]
    with errors_explained(), Client() as client:
        labels = _labels(label or [])
        with _blamed_on(file), upload_bar(*files) as on_progress:
            version = client.models.publish(
                model, file, external_data=external_data, alias=moved, labels=labels, request_id=request_id,
                on_progress=on_progress,
            )  # fmt: skip
        if as_json:
            print_json(version)
        else:
            _describe(client, model, version, moved)


def _labels(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--label: expected NAME=VALUE, got {pair!r}")
        found[name] = value
    return found


@contextmanager
def _blamed_on(file: Path) -> Iterator[None]:
    """What the registry says of the graph is said of the file that somebody gave."""
    try:
        yield
    except RemoteError as error:
        if error.metadata.get("field") == "model_version.digest":
            error.message = f"{file}: {error.message}"
        raise


def _describe(client: Client, model: str, version: ModelVersion, alias: str) -> None:
    out.print(version.name, highlight=False)
    weights = f" and {size(version.external_data.size_bytes)} of weights" if version.HasField("external_data") else ""
    told = f"{signature_text(version)}, {size(version.size_bytes)}{weights}, sha256 {version.digest}"
    err.print(told, markup=False, highlight=False, emoji=False)
    pointed = client.models.get(model).aliases.get(alias, 0) if alias else 0
    if alias and pointed != version.version:
        err.print(
            f"published before; {alias} points to {f'version {pointed}' if pointed else 'nothing'} by now: "
            f"modelyard models promote {model} {version.version} --alias {alias}",
            markup=False, highlight=False, emoji=False,
        )  # fmt: skip
    elif alias:
        err.print(f"{alias} → {version.version}", highlight=False)
