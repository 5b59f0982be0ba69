"""A running cluster for the benchmarks: started, filled through the registry, found by address and token."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import processes, workshop
from benchmarks.peers import ModelFile, StartFailed
from benchmarks.peers.peer import is_ready
from benchmarks.processes import Launch
from modelyard.client.blobs import upload_file
from modelyard.client.connection import Connection, Endpoint
from modelyard.core.probe import probe
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.v1.model_pb2 import ModelVersion
from modelyard.v1.model_service_pb2 import CreateModelVersionRequest
from modelyard.v1.model_service_pb2_grpc import ModelServiceStub

from .program import READY_FILE

Metadata = tuple[tuple[str, str], ...]

_SERVED_LIMIT_S = 120.0
_POLL_S = 0.1


@dataclass(frozen=True)
class Cluster:
    """Where it is."""

    door: str
    """`host:port`."""
    pod: str
    """The direct pod's `host:port`."""
    token: str
    pod_process: psutil.Process
    pod_log: Path

    @property
    def metadata(self) -> Metadata:
        """What every call must carry."""
        return _metadata(self.token)

    def pod_processes(self) -> list[psutil.Process]:
        """The direct pod's process, its children included."""
        return [self.pod_process, *self.pod_process.children(recursive=True)]


@dataclass(frozen=True)
class _Told:
    """What the cluster's program has written down."""

    door: str
    token: str
    pod: Mapping[str, str]

    @classmethod
    def read(cls, file: Path) -> _Told:
        found = json.loads(file.read_text())
        return cls(found["door"], Path(found["token"]).read_text().strip(), found["pod"])


@contextmanager
def running_cluster(models: Sequence[ModelFile]) -> Iterator[Cluster]:
    """A new cluster that serves the models under the alias `live`, on the door and on the direct pod.

    The direct pod begins when the pod behind the door has loaded all models: a pod measures at load how it should
    compute a model, and two that do so at once on one machine measure each other.

    Raises StartFailed. The logs stay in the workshop's `logs/modelyard`.
    """
    data_dir = Path(tempfile.mkdtemp(prefix="modelyard-", dir=workshop.folder("run")))
    logs = data_dir / "logs"
    try:
        with processes.running(_cluster_launch(data_dir)):
            told = _Told.read(data_dir / READY_FILE)
            _publish(told, models)
            _until_served(told.door, told, models, logs / "inference.log")
            address = f"127.0.0.1:{workshop.free_port()}"
            pod_log = logs / "inference-direct.log"
            with processes.running(_pod_launch(address, told, pod_log)) as pod:
                _until_served(address, told, models, pod_log)
                yield Cluster(told.door, address, told.token, pod, pod_log)
    finally:
        shutil.rmtree(workshop.folder("logs") / "modelyard", ignore_errors=True)
        shutil.copytree(logs, workshop.folder("logs") / "modelyard", dirs_exist_ok=True)
        shutil.rmtree(data_dir, ignore_errors=True)


def _cluster_launch(data_dir: Path) -> Launch:
    return Launch(
        command=[sys.executable, "-m", "benchmarks.ours.program", str(data_dir)],
        log=data_dir / "up.log",
        environment={
            "PYTHONPATH": str(workshop.REPOSITORY),
            "XDG_STATE_HOME": str(data_dir / "state"),  # a developer's own cluster must not be overwritten
            "MODELYARD_WORKER_WARM_TRAINER": "false",  # nothing is trained here
        },
        ready=(data_dir / READY_FILE).exists,
        stop_signal=signal.SIGINT,
        stop_grace_s=60,
    )


def _pod_launch(address: str, told: _Told, log: Path) -> Launch:
    return Launch(
        command=[sys.executable, "-m", "modelyard.inference"],
        log=log,
        environment={**told.pod, "MODELYARD_INFERENCE_LISTEN": address},
        ready=lambda: probe(address, timeout_s=1.0) == "",
    )


def _publish(told: _Told, models: Sequence[ModelFile]) -> None:
    """Uploads each model as a version."""
    connection = Connection(Endpoint(told.door, told.token))
    try:
        for model in models:
            request = CreateModelVersionRequest(
                parent=f"models/{model.name}",
                model_version=ModelVersion(digest=upload_file(ArtifactServiceStub(connection.channel), model.path)),
                request_id=uuid.uuid4().hex,
                alias="live",
            )
            ModelServiceStub(connection.channel).CreateModelVersion(request, timeout=60)
    finally:
        connection.close()


def _until_served(address: str, told: _Told, models: Sequence[ModelFile], log: Path) -> None:
    """Returns when all models are. Raises StartFailed."""
    deadline = time.monotonic() + _SERVED_LIMIT_S
    for model in models:
        while not is_ready(address, model.name, metadata=_metadata(told.token)):
            if time.monotonic() > deadline:
                raise StartFailed(f"{model.name} is not served:\n{processes.tail(log)}")
            time.sleep(_POLL_S)


def _metadata(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)
