"""The folder that parent and trainer share: the job on the way in, the result on the way out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from modelyard.v1.dataset_pb2 import Dataset
from modelyard.v1.training_job_pb2 import TrainingJob
from modelyard.v1.worker_service_pb2 import FinishTrainingJobRequest


@dataclass(frozen=True, slots=True)
class Assignment:
    """One job's folder."""

    folder: Path

    def job(self) -> TrainingJob:
        """The job as it was claimed, its spec normalised."""
        return json_format.Parse((self.folder / "job.json").read_text(), TrainingJob())

    def dataset(self) -> Dataset:
        """The dataset's description."""
        return json_format.Parse((self.folder / "dataset.json").read_text(), Dataset())

    @property
    def dataset_file(self) -> Path:
        """The dataset's content; the parent has verified its digest."""
        return self.folder / "dataset"

    @property
    def model_file(self) -> Path:
        """Where the exported graph goes."""
        return self.folder / "model.onnx"

    def write_model(self, content: bytes) -> None:
        """Stores the exported graph, whole or not at all."""
        _write(self.model_file, content)

    def write_result(self, result: FinishTrainingJobRequest) -> None:
        """Stores how the job ended, whole or not at all. The last thing a trainer does."""
        _write(self.folder / "result.json", json_format.MessageToJson(result).encode())


def _write(path: Path, content: bytes) -> None:
    """Temporary file, fsync, rename, fsync of the folder: after a crash there is the whole file or none."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
