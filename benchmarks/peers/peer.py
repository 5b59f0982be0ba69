"""What every other server has in common: a set-up, and a launch with given models on a free port of loopback."""

from __future__ import annotations

import shutil
import signal
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import grpc

from benchmarks import environments, processes, workshop
from benchmarks.processes import Launch
from benchmarks.workshop import free_port
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import InferenceStub

_REQUIREMENTS = Path(__file__).with_name("requirements")
INSIDE = Path(__file__).with_name("inside")
"""Programs that run in the peers' own environments."""


@dataclass(frozen=True)
class Tuning:
    """How a peer serves a model. In a measurement each gets what is best for it: see README."""

    instances: int = 1
    """Copies of the model that compute at once (Triton only)."""
    graph_threads: int = 1
    """ONNX Runtime's intra-op threads."""
    max_batch_size: int = 64
    """Rows that the server may gather into one run (KServe never does); 0: it does not gather."""
    beside_the_loop: bool = True
    """Whether a run leaves the event loop for a thread (MLServer, KServe): worth it from about half a millisecond."""


@dataclass(frozen=True)
class ModelFile:
    """An ONNX file to be served under a name."""

    name: str
    path: Path
    tuning: Tuning = field(default_factory=Tuning)


class Peer(ABC):
    """Another server of the Open Inference Protocol."""

    name: ClassVar[str]
    package: ClassVar[str]
    """The distribution whose version is reported."""

    def set_up(self) -> Path:
        """Its virtual environment; built on first use. Raises SetUpFailed."""
        return environments.environment(self.name, _REQUIREMENTS / f"{self.name}.txt")

    @contextmanager
    def running(self, models: Sequence[ModelFile]) -> Iterator[str]:
        """Serves the models, gives `host:port` once all of them are ready, and stops everything at the end.

        Raises SetUpFailed, StartFailed.
        """
        place = self.set_up()
        work = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=workshop.folder("run")))
        port = free_port()
        address = f"127.0.0.1:{port}"
        plan = self.plan(place, work, port, models)
        launch = Launch(
            command=plan.command,
            log=work / "log",
            environment=plan.environment,
            ready=lambda: all(is_ready(address, model.name) for model in models),
            stop_signal=plan.stop_signal,
        )
        try:
            with processes.running(launch):
                yield address
        finally:
            self.clean_up(work)
            if (work / "log").exists():
                shutil.copy(work / "log", workshop.folder("logs") / f"{self.name}.log")
            shutil.rmtree(work, ignore_errors=True)

    @abstractmethod
    def plan(self, place: Path, work: Path, port: int, models: Sequence[ModelFile]) -> Plan:
        """How to start it. `place`: its environment; `work`: an empty folder; `port`: for gRPC, on loopback."""

    def clean_up(self, work: Path) -> None:  # noqa: B027 - most leave nothing
        """Takes away what it leaves outside of its folder."""


@dataclass(frozen=True)
class Plan:
    """A peer's start."""

    command: Sequence[str]
    environment: Mapping[str, str]
    stop_signal: signal.Signals = signal.SIGTERM


def is_ready(address: str, model: str, *, metadata: tuple[tuple[str, str], ...] = ()) -> bool:
    """Whether a server answers that it serves the model."""
    with grpc.insecure_channel(address) as channel:
        try:
            request = pb.ModelReadyRequest(name=model)
            return InferenceStub(channel).ModelReady(request, timeout=2, metadata=metadata).ready
        except grpc.RpcError:
            return False
