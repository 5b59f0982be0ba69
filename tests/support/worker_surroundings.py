"""All that a worker talks to, for tests: a gateway and an artifact store over real gRPC, and a trainer that obeys."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard_workers.settings import WorkerSettings

from .artifact_store import ArtifactStore
from .background import BackgroundServer, serve_in_background
from .identity import Identity
from .worker_gateway import WorkerGateway

FAULTY_TRAINER = Path(__file__).with_name("faulty_trainer.py")
DATASET = b"age,target\n1,2\n3,4\n"


@dataclass
class Surroundings:
    """What a worker talks to, and where it works."""

    gateway: WorkerGateway
    gateway_server: BackgroundServer
    store: ArtifactStore
    folder: Path
    token_file: Path
    dataset_digest: str

    def settings(self, *acts: str, **changes: object) -> WorkerSettings:
        """Settings of a worker whose trainer performs `acts` (see `faulty_trainer`)."""
        values: dict[str, object] = {
            "broker_url": "redis+socket:///nowhere",
            "gateway_address": self.gateway_server.address,
            "registry_address": f"unix:{self.folder}/registry.sock",
            "token_file": self.token_file,
            "work_dir": self.folder / "work",
            "trainer_command": (sys.executable, str(FAULTY_TRAINER), *acts),
            "trainer_grace_s": 0.5,
        }
        return WorkerSettings(**{**values, **changes})  # type: ignore[arg-type]

    def submit(self, job_id: str = "job1", **options: Any) -> str:
        """A job on the dataset; answers its name."""
        return self.gateway.submit(f"trainingJobs/{job_id}", self.dataset_digest, **options)


@contextmanager
def worker_surroundings(identity: Identity) -> Iterator[Surroundings]:
    """Served for the length of a `with`, in a folder with a path short enough for sockets."""
    gateway, store = WorkerGateway(), ArtifactStore()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="worker-")))
        token_file = folder / "token"
        token_file.write_text(identity.token("worker"))
        server = stack.enter_context(serve_in_background(gateway.service(), identity, f"unix:{folder}/gateway.sock"))
        stack.enter_context(serve_in_background(store.service(), identity, f"unix:{folder}/registry.sock"))
        yield Surroundings(gateway, server, store, folder, token_file, store.put(DATASET))
