"""Publishes an ONNX file from anywhere: its blobs go up first, then they become a version in one call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from modelyard.core.names import MODEL, check_external_location, check_id, check_request_id
from modelyard.v1 import model_pb2 as model_pb
from modelyard.v1 import model_service_pb2 as pb
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub

from . import blobs


def check_publication(
    model: str, external_data: Path | None = None, alias: str = "", request_id: str | None = None
) -> None:
    """Raises InvalidFields for what the registry would refuse after gigabytes have gone up."""
    MODEL.parse(f"models/{model}", "model")
    if external_data is not None:
        check_external_location(external_data.name, "external_data")
    if alias:
        check_id(alias, "alias")
    check_request_id(request_id or "")


def upload_version(
    artifacts: ArtifactServiceStub,
    path: Path,
    external_data: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> model_pb.ModelVersion:
    """Uploads the file, and the one with its weights; answers a version that names them.

    `on_progress` hears (bytes sent, bytes in all), both files counted. Raises RemoteError, OSError.
    """
    files = [path] if external_data is None else [path, external_data]
    contents = [blobs.fingerprint(file) for file in files]
    total = sum(content.size_bytes for content in contents)
    before = 0
    for file, content in zip(files, contents, strict=True):
        blobs.upload_file(artifacts, file, _counted_on(on_progress, before, total), content=content)
        before += content.size_bytes
    version = model_pb.ModelVersion(digest=contents[0].digest)
    if external_data is not None:
        version.external_data.digest, version.external_data.location = contents[1].digest, external_data.name
    return version


def _counted_on(
    on_progress: Callable[[int, int], None] | None, before: int, total: int
) -> Callable[[int, int], None] | None:
    """Counts one file's bytes on from those of the files before it."""
    return None if on_progress is None else lambda done, _of_file: on_progress(before + done, total)


def publication(
    model: str, version: model_pb.ModelVersion, alias: str, labels: Mapping[str, str], request_id: str | None
) -> pb.CreateModelVersionRequest:
    """The request that makes the version. Without an id of the caller's it gets one that its content decides."""
    version.labels.update(labels)
    request = pb.CreateModelVersionRequest(parent=f"models/{model}", model_version=version, alias=alias)
    content = request.SerializeToString(deterministic=True)
    request.request_id = hashlib.sha256(content).hexdigest() if request_id is None else request_id
    return request
