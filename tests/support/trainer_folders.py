"""Jobs for the trainer: the folder that its parent would prepare, and the trainer itself as a process."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from google.protobuf import json_format
from sklearn.datasets import load_digits

from modelyard.registry.content.csv_tables import read_csv
from modelyard.registry.content.limits import TableLimits
from modelyard.registry.content.messages import TableFacts
from modelyard.registry.content.npz_tables import read_npz
from modelyard.registry.content.parquet_tables import read_parquet
from modelyard.training import check_spec
from modelyard.v1.dataset_pb2 import Dataset
from modelyard.v1.tensor_pb2 import DataType
from modelyard.v1.training_job_pb2 import TrainingJob
from modelyard.v1.training_spec_pb2 import TrainingSpec
from modelyard.v1.worker_service_pb2 import FinishTrainingJobRequest, TrainingUpdate

_READERS: dict[int, Callable[[Path, TableLimits], TableFacts]] = {
    Dataset.FORMAT_CSV: read_csv,
    Dataset.FORMAT_PARQUET: read_parquet,
    Dataset.FORMAT_NPZ: read_npz,
}


def describe(path: Path, table_format: Dataset.Format.ValueType, name: str = "datasets/table") -> Dataset:
    """The dataset as the registry would describe it: its own readers look at the file."""
    facts = _READERS[table_format](path, TableLimits())
    dataset = Dataset(name=name, format=table_format, row_count=facts.row_count)
    for column in facts.columns:
        dataset.columns.add(
            name=column.name,
            data_type=DataType.Value(f"DATA_TYPE_{column.data_type}"),
            shape=column.shape,
            null_count=column.null_count,
            non_finite_count=column.non_finite_count,
            minimum=column.minimum,
            maximum=column.maximum,
            first_text_row=column.first_text_row,
            first_text=column.first_text,
        )
    return dataset


def digits_npz() -> bytes:
    """scikit-learn's digits: `image` [1797, 8, 8], `digit` [1797]."""
    data = load_digits()
    buffer = io.BytesIO()
    np.savez(buffer, image=data.images.astype(np.uint8), digit=data.target)
    return buffer.getvalue()


def prepare(
    folder: Path, spec: TrainingSpec, content: bytes, table_format: Dataset.Format.ValueType, *, checked: bool = True
) -> Path:
    """Writes job, dataset and its description; `checked=False` leaves the spec as it is, as no gateway would."""
    folder.mkdir(parents=True)
    (folder / "dataset").write_bytes(content)
    dataset = describe(folder / "dataset", table_format, spec.dataset)
    dataset.digest = hashlib.sha256(content).hexdigest()
    job = TrainingJob(name="trainingJobs/test", attempt=1, spec=check_spec(spec, dataset).spec if checked else spec)
    (folder / "dataset.json").write_text(json_format.MessageToJson(dataset))
    (folder / "job.json").write_text(json_format.MessageToJson(job))
    return folder


@dataclass(frozen=True, slots=True)
class Ended:
    """What a trainer left behind."""

    exit_code: int
    updates: list[TrainingUpdate]
    output: str
    """What it printed, errors too."""
    folder: Path

    @property
    def states(self) -> list[str]:
        """The states it entered, in order, without prefix."""
        names = (TrainingJob.State.Name(update.state) for update in self.updates if update.HasField("state"))
        return [name.removeprefix("STATE_") for name in names]

    @property
    def result(self) -> FinishTrainingJobRequest:
        """Its result; FileNotFoundError if there is none."""
        return json_format.Parse((self.folder / "result.json").read_text(), FinishTrainingJobRequest())


class RunningTrainer:
    """A trainer that was started."""

    def __init__(self, process: subprocess.Popen[str], events: IO[str], folder: Path) -> None:
        self.process = process
        self._events = events
        self._folder = folder
        self._updates: list[TrainingUpdate] = []

    def wait_for(self, wanted: Callable[[TrainingUpdate], bool]) -> TrainingUpdate:
        """Reads updates until one is as wanted; AssertionError if the stream ends first."""
        for line in self._events:
            update = json_format.Parse(line, TrainingUpdate())
            self._updates.append(update)
            if wanted(update):
                return update
        raise AssertionError(f"the trainer ended first: {self.end().output}")

    def end(self) -> Ended:
        """Waits for the end."""
        self._updates += [json_format.Parse(line, TrainingUpdate()) for line in self._events]
        output = self.process.communicate(timeout=120)[0]
        return Ended(self.process.returncode, self._updates, output, self._folder)

    def close_events(self) -> None:
        """Stops reading, as a parent that died does."""
        self._events.close()


@contextmanager
def started(folder: Path) -> Iterator[RunningTrainer]:
    """Starts the trainer in `folder`; kills it in the end."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "modelyard_workers.trainer", "--workdir", str(folder), "--events-fd", str(writing)],
        pass_fds=(writing,),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.close(writing)
    with process, os.fdopen(reading) as events:
        try:
            yield RunningTrainer(process, events, folder)
        finally:
            process.kill()


def run(folder: Path) -> Ended:
    """Starts the trainer and waits for its end."""
    with started(folder) as trainer:
        return trainer.end()
