"""Which programs make up a local cluster: commands, settings, and how each is known to be well."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.core.probe import probe as probe_grpc

from . import redis_program
from .keys import Identity

_LOADING_S = 1800.0
"""A pod is well when it has loaded what is served, and that may be gigabytes."""


@dataclass(frozen=True)
class Program:
    """One process of the cluster."""

    name: str
    command: list[str]
    probe: Callable[[], str]
    """Why it is not well; empty if it is. May block for a few seconds."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside the supervisor's own."""
    stop_grace_s: float = 30.0
    """After SIGTERM, before SIGKILL."""
    start_limit_s: float = 60.0
    """In which it becomes well."""


@dataclass(frozen=True)
class Layout:
    """Where a local cluster keeps its things."""

    data_dir: Path
    """Everything that outlives a restart."""
    run_dir: Path
    """Sockets; a short path, since a socket's has 107 bytes at most (unix(7))."""
    identity: Identity
    door: str
    """The door's `host:port`."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Where services serve their metrics, `host:port` by program; those that are missing do not."""

    def socket(self, name: str) -> Path:
        """A program's Unix socket."""
        return self.run_dir / f"{name}.sock"

    def address(self, name: str) -> str:
        """The same as a gRPC address."""
        return f"unix:{self.socket(name)}"

    def folder(self, name: str) -> Path:
        """A folder in the data directory, made if needed."""
        path = self.data_dir / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path


WITH_METRICS = ("gateway", "registry", "inference")
"""Programs that serve metrics."""

_WORKER_GRACE_S = 60.0  # a training saves and uploads a checkpoint first


def local_programs(layout: Layout, *, open_predict: bool = False) -> list[Program]:
    """All programs in the order of starting; stopping goes backwards."""
    return [
        _redis(layout),
        _registry(layout),
        _gateway(layout),
        _inference(layout, open_predict=open_predict),
        _worker(layout),
        _door(layout),
    ]


def _redis(layout: Layout) -> Program:
    unix_socket = layout.socket("redis")
    command = redis_program.command(redis_program.find_server(), layout.folder("redis"), unix_socket)
    return Program("redis", command, lambda: redis_program.probe(unix_socket))


def _registry(layout: Layout) -> Program:
    return _service(layout, "registry", "MODELYARD_REGISTRY", {
        "DATABASE_URL": f"sqlite+aiosqlite:///{layout.data_dir / 'registry.db'}",
        "BLOB_URL": layout.folder("blobs").as_uri(),
    })  # fmt: skip


def _gateway(layout: Layout) -> Program:
    return _service(layout, "gateway", "MODELYARD_GATEWAY", {
        "DATABASE_URL": f"sqlite+aiosqlite:///{layout.data_dir / 'gateway.db'}",
        "BROKER_URL": _broker_url(layout),
        "REGISTRY_ADDRESS": layout.address("registry"),
        "INFERENCE_ADDRESSES": layout.address("inference"),
        "SIGNING_KEY_FILE": str(layout.identity.signing_key_file),
    }, service="modelyard.v1.TrainingService")  # fmt: skip


def _inference(layout: Layout, *, open_predict: bool) -> Program:
    return _service(layout, "inference", "MODELYARD_INFERENCE", {
        "REGISTRY_ADDRESS": layout.address("registry"),
        "CACHE_DIR": str(layout.folder("inference")),
        "RUN_DIR": str(layout.run_dir),
        "TOKEN_FILE": str(layout.identity.token_file("inference")),
        "ANONYMOUS_PREDICT": str(open_predict).lower(),
    }, start_limit_s=_LOADING_S)  # fmt: skip


def _worker(layout: Layout) -> Program:
    ready_file = layout.run_dir / "worker.ready"
    environment = {
        "MODELYARD_WORKER_BROKER_URL": _broker_url(layout),
        "MODELYARD_WORKER_GATEWAY_ADDRESS": layout.address("gateway"),
        "MODELYARD_WORKER_REGISTRY_ADDRESS": layout.address("registry"),
        "MODELYARD_WORKER_TOKEN_FILE": str(layout.identity.token_file("worker")),
        "MODELYARD_WORKER_WORK_DIR": str(layout.folder("worker")),
        "MODELYARD_WORKER_READY_FILE": str(ready_file),
    }
    command = [sys.executable, "-m", "modelyard_workers"]
    return Program("worker", command, lambda: _probe_ready_file(ready_file), environment, stop_grace_s=_WORKER_GRACE_S)


def _probe_ready_file(path: Path) -> str:
    """Why the worker is not well; empty if it is. The file names the process that wrote it: a killed one leaves it."""
    try:
        os.kill(int(path.read_text()), 0)
    except (OSError, ValueError):
        return "it does not hear doorbells yet"
    return ""


def _door(layout: Layout) -> Program:
    environment = {
        "MODELYARD_DOOR_LISTEN": layout.door,
        "MODELYARD_DOOR_GATEWAY_ADDRESSES": layout.address("gateway"),
        "MODELYARD_DOOR_REGISTRY_ADDRESSES": layout.address("registry"),
        "MODELYARD_DOOR_INFERENCE_ADDRESSES": layout.address("inference"),
        "MODELYARD_DOOR_ADMIN_SOCKET": str(layout.socket("door-admin")),
        "MODELYARD_DOOR_CONFIG_FILE": str(layout.run_dir / "envoy.json"),
        # Somebody who watches a job must not hold up Ctrl-C for long.
        "MODELYARD_DOOR_DRAIN_S": "3",
        # A service that died is started again here, but on a busy laptop its imports alone may take ten seconds.
        "MODELYARD_DOOR_PATIENCE_S": "20",
    }
    command = [sys.executable, "-m", "modelyard.door"]
    # Through the door, so that it is well only when the gateway behind it is.
    return Program("door", command, lambda: probe_grpc(layout.door, "modelyard.v1.TrainingService"), environment)


def _service(
    layout: Layout,
    name: str,
    prefix: str,
    settings: Mapping[str, str],
    *,
    service: str = "",
    start_limit_s: float = Program.start_limit_s,
) -> Program:
    address = layout.address(name)
    environment = {
        "LISTEN": address,
        "TOKEN_KEYS_FILE": str(layout.identity.keys_file),
        "METRICS_LISTEN": layout.metrics.get(name, ""),
        **settings,
    }
    return Program(
        name,
        [sys.executable, "-m", f"modelyard.{name}"],
        lambda: probe_grpc(address, service, timeout_s=1.0),
        {f"{prefix}_{key}": value for key, value in environment.items()},
        start_limit_s=start_limit_s,
    )


def _broker_url(layout: Layout) -> str:
    return f"redis+socket://{layout.socket('redis')}"
