"""What the gateway can be told, by environment variables `MODELYARD_GATEWAY_*`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from modelyard.core.doorbell import DEFAULT_QUEUE, QUEUE_PATTERN
from modelyard.core.settings import ServiceSettings

CommaList = Annotated[tuple[str, ...], NoDecode]
"""`a,b,c` in the environment."""

Limits = Annotated[dict[str, Annotated[int, Field(ge=1)]], NoDecode]
"""`a=1,b=2` in the environment."""


class GatewaySettings(ServiceSettings):
    """Read once at start; wrong values end the program with the variable's name."""

    model_config = SettingsConfigDict(env_prefix="MODELYARD_GATEWAY_", frozen=True, extra="ignore")

    database_url: str
    """Jobs, events, tokens: `sqlite+aiosqlite:////path` or `postgresql+asyncpg://user:password@host/name`."""

    broker_url: str
    """Where the doorbells go: `redis://host:port/0` or `redis+socket:///path`."""

    queues: CommaList = (DEFAULT_QUEUE, "gpu")
    """The queues that jobs may wait in, comma-separated: one per class of workers. The first one takes jobs that name
    none. A worker says by its own setting which of them it serves."""

    queue_max_running: Limits = Field(default_factory=dict)
    """The most jobs that a queue runs at once, as in `gpu=8,cpu=20`; a queue that is not in it runs as many as it has
    workers."""

    tenant_max_running_jobs: int = Field(default=0, ge=0)
    """The most jobs that a tenant runs at once, in all queues together; 0: no limit. For tenants without a limit of
    their own (`UpdateTenant`)."""

    tenant_max_waiting_jobs: int = Field(default=10_000, ge=0)
    """The most jobs that a tenant may have waiting; more are refused. 0: no limit. As above."""

    signing_key_file: Path
    """PEM file (PKCS #8) with the private Ed25519 key that signs tokens. Only the gateway has it."""

    registry_address: str
    """`host:port` or `unix:/path`."""

    registry_timeout_s: float = Field(default=10.0, gt=0)
    """A question to the registry may take so long; then the caller is told UNAVAILABLE."""

    publication_timeout_s: float = Field(default=300.0, gt=0)
    """The registry may take so long to read a graph through and make it a version; then it is asked again."""

    inference_addresses: CommaList = ()
    """Inference pods whose health is shown, comma-separated: `host:port` or `unix:/path`."""

    lease_s: float = Field(default=45.0, gt=0)
    """A worker that does not report for so long loses its job."""

    report_interval_s: float = Field(default=10.0, gt=0)
    """How often workers are told to report at least: on their job, and on themselves. A worker that says nothing of
    itself for three times as long is taken for gone."""

    infrastructure_retries: int = Field(default=5, ge=0)
    """A job whose worker was lost or could not go on is tried again so often."""

    retry_delay_s: float = Field(default=5.0, gt=0)
    """A lost job is tried again at once for the first time. Later retries of it, and all that the user asked for, wait
    so long first, and twice as long each time, up to 5 minutes."""

    node_faults: int = Field(default=3, ge=1)
    """A machine on which so many attempts in a row end by the platform's fault gets no jobs for a while, as long as
    there is another one."""

    node_exclusion_s: float = Field(default=600.0, gt=0)
    """For so long; and within so long the attempts must have ended."""

    checkpoint_retention_s: float = Field(default=3600.0, ge=0)
    """The last checkpoint of a job that failed or was cancelled is kept so long; all others of a job that has ended are
    removed at once."""

    checkpoint_removal_interval_s: float = Field(default=5.0, gt=0)
    """How often checkpoints are looked for that nobody needs any more."""

    outbox_interval_s: float = Field(default=1.0, gt=0)
    """How often doorbells are looked for that another replica left, or that wait for the broker. Those of this process
    ring at once."""

    reap_interval_s: float = Field(default=5.0, gt=0)
    """How often leases that have run out are looked for, and results that nobody publishes any more."""

    ring_again_s: float = Field(default=30.0, gt=0)
    """A queued job that nobody has come for is rung for again after so long, if its doorbell seems to be lost."""

    watch_interval_s: float = Field(default=0.2, gt=0)
    """How often the histories that are being watched are looked up, for what other replicas have written."""

    @field_validator("inference_addresses", "queues", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return _parts(value) if isinstance(value, str) else value

    @field_validator("queue_max_running", mode="before")
    @classmethod
    def _split_limits(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in _parts(value)]
        return {queue.strip(): limit.strip() for queue, _, limit in pairs}

    @model_validator(mode="after")
    def _queues_are_known(self) -> Self:
        if not self.queues or any(re.fullmatch(QUEUE_PATTERN, queue) is None for queue in self.queues):
            raise ValueError("queues: expected at least one name of a-z 0-9 -, a letter first")
        if len(set(self.queues)) < len(self.queues):
            raise ValueError("queues: expected each name once")
        unknown = self.queue_max_running.keys() - set(self.queues)
        if unknown:
            raise ValueError(f"queue_max_running: no such queue: {', '.join(sorted(unknown))}")
        return self

    @model_validator(mode="after")
    def _lease_outlives_reports(self) -> Self:
        if self.lease_s < 2 * self.report_interval_s:
            raise ValueError("lease_s must be at least twice report_interval_s: one lost report must not cost a job")
        return self


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
