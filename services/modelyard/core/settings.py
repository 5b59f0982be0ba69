"""Settings that every service has. Each service adds its own beside its code."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MEBIBYTE = 1024 * 1024


class ServiceSettings(BaseSettings):
    """Read once at start from the environment; wrong values end the program with the variable's name."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    listen: str = "127.0.0.1:0"
    """Where the gRPC server listens: `host:port` (port 0 takes a free one) or `unix:/path`."""

    metrics_listen: str = Field(default="", pattern=r"^$|^.+:\d{1,5}$")
    """Where metrics are served over HTTP at `/metrics`: `host:port` (port 0 takes a free one). Empty: nowhere. Without
    a token, so only where the monitoring system reaches it."""

    token_keys_file: Path
    """JSON Web Key Set with the public Ed25519 keys whose tokens are accepted (RFC 7517, RFC 8037)."""

    token_file: Path | None = None
    """File with the service's own bearer token, for calling other services."""

    max_request_bytes: int = Field(default=4 * MEBIBYTE, gt=0)
    """A larger request is answered RESOURCE_EXHAUSTED with the reason TOO_LARGE."""

    drain_delay_s: float = Field(default=0.5, ge=0)
    """After SIGTERM health says NOT_SERVING and calls are still taken for so long: the door looks away first."""

    shutdown_grace_s: float = Field(default=20.0, ge=0)
    """Running calls may take so long to end after that; then they are cancelled."""

    log_format: str = Field(default="json", pattern="^(json|console)$")
    """`json`: one object a line, for machines; `console`: for people."""

    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """Least severity that is logged."""
