"""What the registry can be told, by environment variables `MODELYARD_REGISTRY_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from modelyard.core.settings import MEBIBYTE, ServiceSettings

GIBIBYTE = 1024 * MEBIBYTE


class RegistrySettings(ServiceSettings):
    """Read once at start; wrong values end the program with the variable's name."""

    model_config = SettingsConfigDict(env_prefix="MODELYARD_REGISTRY_", frozen=True, extra="ignore")

    database_url: str
    """Metadata: `sqlite+aiosqlite:////path` or `postgresql+asyncpg://user:password@host/name`."""

    blob_url: str
    """Content: `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`. Credentials
    that are not given here come from where the provider's own tools look (`AWS_*`, the instance's role, …)."""

    blob_endpoint: str | None = None
    """Address of an S3-compatible store that is not AWS, as in `https://minio.example:9000`."""

    blob_region: str | None = None
    """Region of the S3 bucket."""

    blob_access_key_id: str | None = None
    """S3 access key."""

    blob_secret_access_key: SecretStr | None = None
    """The secret that belongs to it."""

    max_blob_bytes: int = Field(default=64 * GIBIBYTE, gt=0)
    """A larger upload is refused when it is announced."""

    part_bytes: int = Field(default=8 * MEBIBYTE, ge=MEBIBYTE // 16, le=64 * MEBIBYTE)
    """An upload is stored in parts of this size; so much of it is lost at most when its stream breaks."""

    tenant_uploads: int = Field(default=16, ge=1)
    """Upload streams of one tenant at a time; each takes about four parts of memory. More are told to try again."""

    tenant_downloads: int = Field(default=64, ge=1)
    """Download streams of one tenant at a time; each takes about 8 MiB of memory. More are told to try again."""

    upload_idle_s: float = Field(default=60.0, gt=0)
    """An upload stream that sends nothing for so long is ended."""

    upload_expiry_s: float = Field(default=24 * 3600.0, gt=0)
    """An upload to which nothing was added for so long is thrown away."""

    orphan_age_s: float = Field(default=3600.0, gt=0)
    """A stored part that belongs to no upload is removed after so long; it must be far above the time that storing one
    part takes."""

    request_retention_s: float = Field(default=30 * 24 * 3600.0, gt=0)
    """How long a `request_id` is remembered."""

    sweep_interval_s: float = Field(default=600.0, gt=0)
    """How often what has expired is removed."""

    scratch_dir: Path | None = None
    """Where content from a remote store is put while it is being read; default: the system's temporary folder."""

    content_memory_bytes: int = Field(default=GIBIBYTE, ge=128 * MEBIBYTE)
    """The process that reads an uploaded table or graph may take so much memory (for a graph: beside its own size)."""

    content_time_s: int = Field(default=300, ge=1)
    """The same for time."""

    content_processes: int = Field(default=2, ge=1)
    """How many tables and graphs are read at a time."""

    operator_domains: Annotated[tuple[str, ...], NoDecode] = ("ai.onnx", "ai.onnx.ml", "com.microsoft")
    """Operator sets that a graph may use, comma-separated."""

    watch_interval_s: float = Field(default=0.25, gt=0)
    """How often changes by other replicas are looked for. Those of this process are seen at once."""

    heartbeat_s: float = Field(default=5.0, gt=0)
    """A watching pod hears something at least so often."""

    pod_lease_s: float = Field(default=15.0, gt=0)
    """A pod counts as gone when it has told nothing of itself for so long; it does so three times within."""

    pod_retention_s: float = Field(default=3600.0, gt=0)
    """How long pods that are gone are remembered."""

    shadow_retention_s: float = Field(default=30 * 24 * 3600.0, gt=0)
    """How long what a pod's shadow versions did is remembered after it last told of it."""

    @field_validator("operator_domains", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("blob_url")
    @classmethod
    def _lasting(cls, value: str) -> str:
        if value.partition("://")[0] not in {"file", "s3", "gs", "az"}:
            raise ValueError("expected a URL that begins with file://, s3://, gs:// or az://")
        return value
