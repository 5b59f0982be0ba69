"""`modelyard datasets …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelyard.client import Client
from modelyard.v1.dataset_pb2 import Dataset
from modelyard.v1.tensor_pb2 import DataType

from .output import JsonFlag, errors_explained, given_id, last_part, out, print_json, print_table, size, when
from .uploading import upload_bar

app = typer.Typer(help="Tables to train on.", no_args_is_help=True)


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="A .csv, .parquet or .npz file.", exists=True, dir_okay=False)],
    dataset: Annotated[str, typer.Option("--id", help="The dataset's id; default: from the file's name.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Upload a file as a dataset. A broken upload goes on where it broke when the command is repeated."""
    with errors_explained(), Client() as client:
        with upload_bar(file) as on_progress:
            created = client.datasets.upload(file, dataset=dataset, on_progress=on_progress)
        if as_json:
            print_json(created)
        else:
            _describe(created)


@app.command("list")
def list_datasets(as_json: JsonFlag = False) -> None:
    """List datasets, newest first."""
    with errors_explained(), Client() as client:
        datasets = list(client.datasets.list())
        if as_json:
            print_json(datasets)
            return
        print_table(
            ["DATASET", "ROWS", "COLUMNS", "SIZE", "DIGEST", "CREATED"],
            [
                [
                    last_part(dataset.name),
                    f"{dataset.row_count:,}",
                    str(len(dataset.columns)),
                    size(dataset.size_bytes),
                    dataset.digest[:12],
                    when(dataset.create_time),
                ]
                for dataset in datasets
            ],
            empty="no datasets yet: modelyard datasets upload FILE",
        )


@app.command()
def show(dataset: Annotated[str, typer.Argument(help="The dataset's id.")], as_json: JsonFlag = False) -> None:
    """Show a dataset's columns."""
    with errors_explained(), Client() as client:
        found = client.datasets.get(given_id(dataset, "datasets"))
        if as_json:
            print_json(found)
        else:
            _describe(found)


def _describe(dataset: Dataset) -> None:
    out.print(f"{dataset.name}  {dataset.row_count:,} rows  sha256 {dataset.digest}", highlight=False)
    print_table(
        ["COLUMN", "TYPE", "SHAPE", "MISSING", "NOT FINITE", "MINIMUM", "MAXIMUM"],
        [
            [
                column.name,
                DataType.Name(column.data_type).removeprefix("DATA_TYPE_"),
                "×".join(map(str, column.shape)) or "scalar",
                str(column.null_count or ""),
                str(column.non_finite_count or ""),
                f"{column.minimum:.4g}",
                f"{column.maximum:.4g}",
            ]
            for column in dataset.columns
        ],
        empty="no columns",
    )
