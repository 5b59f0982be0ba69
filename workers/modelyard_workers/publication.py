"""Brings a trained model to the artifact store."""

from __future__ import annotations

import os
from pathlib import Path

from modelyard.client import blobs
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.v1.worker_service_pb2 import TrainedArtifact

from .outcomes import MODEL_FILE, BrokenResult, open_regular


def publish(
    stub: ArtifactServiceStub,
    workdir: Path,
    claimed: TrainedArtifact,
    on_progress: blobs.Progress,
    *,
    patience_s: float,
) -> TrainedArtifact:
    """Uploads the model and answers the artifact with the digest that was really found.

    Raises BrokenResult if the file is not the one that the trainer's result speaks of, and what `upload_file` raises.
    """
    descriptor = open_regular(workdir / MODEL_FILE)
    try:
        # By descriptor from here on: what is hashed is what is sent, whatever happens to the name.
        model = Path(f"/proc/self/fd/{descriptor}")
        content = blobs.fingerprint(model, on_progress)
        _compare(content, claimed)
        blobs.upload_file(stub, model, on_progress, content=content, patience_s=patience_s)
    finally:
        os.close(descriptor)
    artifact = TrainedArtifact()
    artifact.CopyFrom(claimed)
    artifact.size_bytes = content.size_bytes
    return artifact


def _compare(found: blobs.Fingerprint, claimed: TrainedArtifact) -> None:
    if found.digest != claimed.digest:
        raise BrokenResult(
            f"the trainer's {MODEL_FILE} has the SHA-256 {found.digest}, its result says {claimed.digest or 'nothing'}"
        )
    if claimed.size_bytes and found.size_bytes != claimed.size_bytes:
        raise BrokenResult(
            f"the trainer's {MODEL_FILE} has {found.size_bytes} bytes, its result says {claimed.size_bytes}"
        )
