"""The folder that parent and trainer share: the job on the way in, the result on the way out."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from modelyard.v1.dataset_pb2 import Dataset
from modelyard.v1.training_job_pb2 import TrainingJob
from modelyard.v1.worker_service_pb2 import FinishTrainingJobRequest

from .durable import whole_file

CHECKPOINT_INTERVAL_S = 60.0


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
    def checkpoint_file(self) -> Path:
        """The checkpoint to go on from, if there is one; the parent has verified its digest."""
        return self.folder / "checkpoint.safetensors"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints that are made."""
        return self.folder / "checkpoints"

    def checkpoint_interval_s(self) -> float:
        """How often to make one; 0 for only when told to stop. Raises ValueError if the parent wrote nonsense."""
        settings = self.folder / "trainer.json"
        if not settings.exists():
            return CHECKPOINT_INTERVAL_S
        interval = float(json.loads(settings.read_text()).get("checkpoint_interval_s", CHECKPOINT_INTERVAL_S))
        if not 0 <= interval < math.inf:
            raise ValueError(f"checkpoint_interval_s is {interval}")
        return interval

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
    """Whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
