"""A running cluster for the benchmarks: started, filled through the registry, found by address and token."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
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
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.v1.model_pb2 import ModelVersion
from modelyard.v1.model_service_pb2 import CreateModelVersionRequest
from modelyard.v1.model_service_pb2_grpc import ModelServiceStub

from .program import READY_FILE

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
    data_dir: Path
    process: psutil.Process

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call must carry."""
        return (("authorization", f"Bearer {self.token}"),)

    @property
    def pod_log(self) -> Path:
        """The direct pod's log."""
        return self.data_dir / "logs/inference-direct.log"

    def pod_processes(self) -> list[psutil.Process]:
        """The direct pod's process, its children included."""
        (pod,) = (child for child in self.process.children() if _is_direct_pod(child, self.pod))
        return [pod, *pod.children(recursive=True)]


@contextmanager
def running_cluster(models: Sequence[ModelFile]) -> Iterator[Cluster]:
    """A new cluster that serves the models under the alias `live`, on the door and on the direct pod.

    Raises StartFailed. The logs stay in the workshop's `logs/modelyard`.
    """
    data_dir = Path(tempfile.mkdtemp(prefix="modelyard-", dir=workshop.folder("run")))
    port = workshop.free_port()
    launch = Launch(
        command=[sys.executable, "-m", "benchmarks.ours.program", str(data_dir), str(port)],
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
    try:
        with processes.running(launch) as process:
            told = json.loads((data_dir / READY_FILE).read_text())
            token = Path(told["token"]).read_text().strip()
            cluster = Cluster(told["door"], told["pod"], token, data_dir, process)
            _publish(cluster, models)
            yield cluster
    finally:
        shutil.rmtree(workshop.folder("logs") / "modelyard", ignore_errors=True)
        shutil.copytree(data_dir / "logs", workshop.folder("logs") / "modelyard", dirs_exist_ok=True)
        shutil.rmtree(data_dir, ignore_errors=True)


def _publish(cluster: Cluster, models: Sequence[ModelFile]) -> None:
    """Uploads each model as a version and waits until pod and door answer for it."""
    connection = Connection(Endpoint(cluster.door, cluster.token))
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
    deadline = time.monotonic() + _SERVED_LIMIT_S
    for address in (cluster.pod, cluster.door):
        for model in models:
            while not is_ready(address, model.name, metadata=cluster.metadata):
                if time.monotonic() > deadline:
                    raise StartFailed(f"{model.name} is not served:\n{processes.tail(cluster.pod_log)}")
                time.sleep(_POLL_S)


def _is_direct_pod(process: psutil.Process, address: str) -> bool:
    return process.environ().get("MODELYARD_INFERENCE_LISTEN") == address
