"""What the gateway can be told, by environment variables `MODELYARD_GATEWAY_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from modelyard.core.doorbell import DEFAULT_QUEUE, celery_queue
from modelyard.core.settings import ServiceSettings

CommaList = Annotated[tuple[str, ...], NoDecode]
"""`a,b,c` in the environment."""


class GatewaySettings(ServiceSettings):
    """Read once at start; wrong values end the program with the variable's name."""

    model_config = SettingsConfigDict(env_prefix="MODELYARD_GATEWAY_", frozen=True, extra="ignore")

    database_url: str
    """Jobs, events, tokens: `sqlite+aiosqlite:////path` or `postgresql+asyncpg://user:password@host/name`."""

    broker_url: str
    """Where the doorbells go: `redis://host:port/0` or `redis+socket:///path`."""

    queue: str = celery_queue(DEFAULT_QUEUE)
    """The Celery queue that is rung."""

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
    """How often workers are told to report at least."""

    max_attempts: int = Field(default=5, ge=1)
    """A job whose worker was lost is tried again until it has been claimed so often."""

    outbox_interval_s: float = Field(default=1.0, gt=0)
    """How often doorbells are looked for that another replica left, or that wait for the broker. Those of this process
    ring at once."""

    reap_interval_s: float = Field(default=5.0, gt=0)
    """How often leases that have run out are looked for, and results that nobody publishes any more."""

    ring_again_s: float = Field(default=30.0, gt=0)
    """A queued job that nobody has come for is rung for again after so long, if its doorbell seems to be lost."""

    watch_interval_s: float = Field(default=0.2, gt=0)
    """How often the histories that are being watched are looked up, for what other replicas have written."""

    @field_validator("inference_addresses", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _lease_outlives_reports(self) -> Self:
        if self.lease_s < 2 * self.report_interval_s:
            raise ValueError("lease_s must be at least twice report_interval_s: one lost report must not cost a job")
        return self
