"""What a worker needs to know. Every field is the environment variable of its name with the prefix."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from modelyard.core.doorbell import DEFAULT_QUEUE, QUEUE_PATTERN

GIBIBYTE = 1024**3


BUILT_IN_TRAINER = (sys.executable, "-m", "modelyard_workers.trainer")


class WorkerSettings(BaseSettings):
    """Read once at start from the environment; wrong values end the program with the variable's name."""

    model_config = SettingsConfigDict(env_prefix="MODELYARD_WORKER_", frozen=True, extra="ignore")

    broker_url: str = Field(pattern=r"^(redis|rediss)://.+|^redis\+socket:///.+")
    """Where the doorbells come from: `redis://host:port/0`, `rediss://…`, or `redis+socket:///path`."""

    queues: str = Field(default=DEFAULT_QUEUE, pattern=rf"^{QUEUE_PATTERN}(,{QUEUE_PATTERN})*$")
    """The queues whose jobs this worker takes, with commas between them, such as `cpu` or `gpu,cpu`."""

    node: str = Field(default_factory=socket.gethostname, pattern=r"^[^/\s]{1,200}$")
    """The machine, by which the gateway knows it: jobs are kept away from one that keeps failing. Default: its name."""

    concurrency: int = Field(default=1, ge=1, le=64)
    """How many jobs train at the same time. One per accelerator."""

    gateway_address: str = Field(min_length=1)
    """The gateway's gRPC address, `host:port` or `unix:/path`."""

    registry_address: str = Field(min_length=1)
    """The registry's gRPC address, `host:port` or `unix:/path`."""

    token_file: Path | None = None
    """File with the worker's bearer token (role WORKER); read again when it changes."""

    work_dir: Path
    """Where attempts and cached datasets live, on a local disk. Made private (0700). May be lost at any time."""

    dataset_cache_bytes: int = Field(default=20 * GIBIBYTE, ge=0)
    """Datasets are kept for the next job up to this size; the one used longest ago goes first."""

    out_of_contact_limit_s: float = Field(default=900.0, gt=0)
    """How long a training goes on while the gateway (or, for transfers, the registry) cannot be reached."""

    checkpoint_interval_s: float = Field(default=60.0, ge=0)
    """How often a training saves a checkpoint, at least: a large one is saved less often, so that saving stays cheap.
    0: only when it is stopped."""

    checkpoint_upload_s: float = Field(default=30.0, ge=0)
    """How long a training that was stopped may take to upload its last checkpoint; then the job goes on from an older
    one, unless it comes back to this worker."""

    checkpoint_retention_s: float = Field(default=3 * 86_400.0, ge=0)
    """How long the newest checkpoint of a job that is not known to be over is kept here."""

    trainer_grace_s: float = Field(default=10.0, ge=0)
    """How long a trainer may take to save a checkpoint and stop after SIGTERM; then it is killed. Keep the sum of this,
    `checkpoint_upload_s` and 15 seconds below the grace of whoever stops the worker, so that it ends in good order."""

    trainer_command: tuple[str, ...] = Field(default=BUILT_IN_TRAINER, min_length=1)
    """The program that trains, as a JSON list; `--workdir DIR --events-fd N` is appended."""

    warm_trainer: bool = True
    """Keep one trainer started ahead, with torch imported (some 300 MB), so that a job begins at once. For the built-in
    trainer only: another command is started when its job is there."""

    ready_file: Path | None = None
    """A file that exists, and is touched every few seconds, while doorbells can be heard. For `--check` and probes."""

    log_format: str = Field(default="json", pattern="^(json|console)$")
    """`json`: one object a line, for machines; `console`: for people."""

    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """Least severity that is logged."""

    @property
    def queue_names(self) -> list[str]:
        """`queues` as a list."""
        return self.queues.split(",")
