"""`modelyard predict`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from modelyard.client import Client
from modelyard.core.errors import InvalidFields

from .output import JsonFlag, err, errors_explained, out, read_text
from .traffic import ModelArgument

_METADATA_NAME = re.compile(r"(?!grpc-)[0-9a-z_.-]+(?<!-bin)")
"""What gRPC allows for a text: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, Custom-Metadata."""


def predict(
    model: ModelArgument,
    data: Annotated[
        str | None, typer.Option(help='The rows as JSON: `[[1, 2, 3]]`, or `{"input": [[1, 2, 3]]}` by input name.')
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A file with such JSON; `-` reads standard input.")] = None,
    version: Annotated[str, typer.Option(help="A version's number, or an alias; default: live.")] = "",
    metadata: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE to send with the call, such as a sticky key; may be given several times."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask a served model."""
    with errors_explained(), Client() as client:
        rows, sent = _rows(data, file), _metadata(metadata or [])
        if not isinstance(rows, dict):
            rows = {_only_input(client, model, version): rows}
        prediction = client.predict(model, rows, version=version, metadata=sent)
        outputs = {name: array.tolist() for name, array in prediction.outputs.items()}
        if as_json:
            document = {"model": prediction.model, "version": prediction.version, "outputs": outputs}
            out.print(json.dumps(document), markup=False, highlight=False)
            return
        for name, values in outputs.items():
            for row in values:
                out.print(f"{name}  {json.dumps(row)}", markup=False, highlight=False)
        err.print(f"[dim]{prediction.model} version {prediction.version}[/]")


def _metadata(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not _METADATA_NAME.fullmatch(name):
            raise ValueError(f"--metadata: expected NAME=VALUE, the name in lower case; got {pair!r}")
        found[name] = value
    return found


def _rows(data: str | None, file: Path | None) -> Any:
    if (data is None) == (file is None):
        raise ValueError("give the rows by either --data or --file")
    if data is None:
        data = sys.stdin.read() if str(file) == "-" else read_text(Path(str(file)))
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise ValueError(f"the rows are not JSON: {error}") from error


def _only_input(client: Client, model: str, version: str) -> str:
    inputs = client.predictions.metadata(model, version=version).inputs
    if len(inputs) != 1:
        names = ", ".join(tensor.name for tensor in inputs)
        raise InvalidFields.one("inputs", f"{model} has {len(inputs)} inputs: give an object with {names}")
    return inputs[0].name
