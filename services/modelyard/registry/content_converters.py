"""Between the wire and the domain for blobs and datasets (`model_converters` does the rest; nobody else knows both)."""

from __future__ import annotations

from modelyard.core.errors import Violations
from modelyard.core.names import DATASET_ID, UPLOAD, check_digest, check_id, check_request_id
from modelyard.v1 import artifact_service_pb2, dataset_pb2, dataset_service_pb2

from .content.messages import ColumnFacts
from .datasets import Dataset, NewDataset
from .field_checks import MAX_DISPLAY_NAME, check_by, check_labels, check_line
from .upload_ledger import Blob, Upload
from .upload_stream import Chunk
from .wire import to_data_type, to_timestamp

_FORMATS = {
    dataset_pb2.Dataset.FORMAT_CSV: "csv",
    dataset_pb2.Dataset.FORMAT_PARQUET: "parquet",
    dataset_pb2.Dataset.FORMAT_NPZ: "npz",
}
_FORMATS_BACK = {text: number for number, text in _FORMATS.items()}


def to_upload(upload: Upload) -> artifact_service_pb2.Upload:
    """An upload as callers see it."""
    return artifact_service_pb2.Upload(
        name=upload.name,
        digest=upload.digest,
        size_bytes=upload.size_bytes,
        committed_bytes=upload.committed_bytes,
        complete=upload.complete,
        expire_time=None if upload.complete else to_timestamp(upload.expire_time),
    )


def to_blob(blob: Blob) -> artifact_service_pb2.Blob:
    """A blob as callers see it."""
    return artifact_service_pb2.Blob(
        digest=blob.digest, size_bytes=blob.size_bytes, create_time=to_timestamp(blob.create_time), etag=blob.etag
    )


def from_chunk(request: artifact_service_pb2.WriteUploadRequest, *, first: bool) -> Chunk:
    """A message of an upload stream; the first one names the upload. Raises InvalidFields."""
    upload_id = UPLOAD.parse(request.name, "name")["upload"] if first else ""
    return Chunk(upload_id, request.offset, request.data)


def from_create_dataset(request: dataset_service_pb2.CreateDatasetRequest) -> NewDataset:
    """What the caller says of the dataset; raises InvalidFields with everything that is wrong."""
    dataset, violations = request.dataset, Violations()
    check_by(violations, "dataset_id", request.dataset_id, lambda value, path: check_id(value, path, DATASET_ID))
    check_by(violations, "dataset.digest", dataset.digest, check_digest)
    check_by(violations, "request_id", request.request_id, check_request_id)
    check_line(violations, "dataset.display_name", dataset.display_name, MAX_DISPLAY_NAME)
    check_labels(violations, "dataset.labels", dataset.labels)
    violations.check(
        dataset.format in _FORMATS,
        "dataset.format",
        f"expected FORMAT_CSV, FORMAT_PARQUET or FORMAT_NPZ, got {_enum_text(dataset.format)}",
    )
    violations.raise_if_any()
    return NewDataset(
        id=request.dataset_id,
        format=_FORMATS[dataset.format],
        digest=dataset.digest,
        display_name=dataset.display_name,
        labels=dict(dataset.labels),
    )


def _enum_text(number: int) -> str:
    known = dataset_pb2.Dataset.Format.DESCRIPTOR.values_by_number.get(number)
    return known.name if known else str(number)


def to_dataset(dataset: Dataset) -> dataset_pb2.Dataset:
    """A dataset as callers see it. It never changes, and neither does its etag."""
    return dataset_pb2.Dataset(
        name=f"datasets/{dataset.id}",
        display_name=dataset.display_name,
        labels=dataset.labels,
        format=_FORMATS_BACK[dataset.format],
        digest=dataset.digest,
        size_bytes=dataset.size_bytes,
        row_count=dataset.table.row_count,
        columns=[_to_column(column) for column in dataset.table.columns],
        tenant=dataset.tenant,
        create_time=to_timestamp(dataset.create_time),
        etag=dataset.digest[:16],
    )


def _to_column(column: ColumnFacts) -> dataset_pb2.Dataset.Column:
    return dataset_pb2.Dataset.Column(
        name=column.name,
        data_type=to_data_type(column.data_type),
        shape=column.shape,
        null_count=column.null_count,
        non_finite_count=column.non_finite_count,
        minimum=column.minimum,
        maximum=column.maximum,
        first_text_row=column.first_text_row,
        first_text=column.first_text,
    )
