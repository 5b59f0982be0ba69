"""Datasets: upload a file, look at what was found in it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from modelyard.core.errors import InvalidFields
from modelyard.v1 import dataset_pb2 as dataset_pb
from modelyard.v1 import dataset_service_pb2 as pb
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.v1.dataset_service_pb2_grpc import DatasetServiceStub

from . import blobs
from .connection import DEFAULT_TIMEOUT_S, Connection, pages, translated

Format = dataset_pb.Dataset.Format
_FORMATS = {".csv": Format.FORMAT_CSV, ".parquet": Format.FORMAT_PARQUET, ".npz": Format.FORMAT_NPZ}
_INSPECTION_TIMEOUT_S = 600.0


class DatasetsClient:
    """`client.datasets`. Datasets are named by id (`diabetes`), not by resource name."""

    def __init__(self, connection: Connection) -> None:
        self._stub = DatasetServiceStub(connection.channel)
        self._artifacts = ArtifactServiceStub(connection.channel)

    def upload(
        self, path: Path | str, *, dataset: str = "", on_progress: Callable[[int, int], None] | None = None
    ) -> dataset_pb.Dataset:
        """Uploads a `.csv`, `.parquet` or `.npz` file and makes it a dataset.

        `dataset`: its id; by default made of the file's name. `on_progress` hears (bytes sent, bytes in all).
        Uploading the same content to the same id again answers the dataset that is there.
        """
        path = Path(path)
        file_format = _FORMATS.get(path.suffix.lower())
        if file_format is None:
            raise InvalidFields.one(
                "dataset.format", f"expected a file ending in {', '.join(_FORMATS)}; got {path.name!r}"
            )
        with translated():
            digest = blobs.upload_file(self._artifacts, path, on_progress=on_progress)
            request = pb.CreateDatasetRequest(
                dataset_id=dataset or id_from_file_name(path),
                dataset=dataset_pb.Dataset(format=file_format, digest=digest),
                request_id=uuid.uuid4().hex,
            )
            return self._stub.CreateDataset(request, timeout=_INSPECTION_TIMEOUT_S)

    def get(self, dataset: str) -> dataset_pb.Dataset:
        """One dataset."""
        with translated():
            return self._stub.GetDataset(pb.GetDatasetRequest(name=f"datasets/{dataset}"), timeout=DEFAULT_TIMEOUT_S)

    def list(self, *, limit: int | None = None) -> Iterator[dataset_pb.Dataset]:
        """Datasets, newest first, fetched page by page."""

        def fetch(token: str) -> tuple[list[dataset_pb.Dataset], str]:
            with translated():
                page = self._stub.ListDatasets(pb.ListDatasetsRequest(page_token=token), timeout=DEFAULT_TIMEOUT_S)
            return list(page.datasets), page.next_page_token

        return pages(fetch, limit)


def id_from_file_name(path: Path) -> str:
    """A dataset id made of a file's name: `My Data 2.csv` becomes `my-data-2`."""
    words = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")
    return (words if words[:1].isalpha() else f"data-{words}")[:63].rstrip("-")
