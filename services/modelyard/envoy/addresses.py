"""Where something listens: `host:port` or `unix:/path`, as everywhere in Modelyard."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

UNIX_PREFIX = "unix:"
MAX_UNIX_PATH_BYTES = 107
"""What Linux's `sockaddr_un` holds, less the closing zero."""


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (IP address or DNS name) and a port."""

    host: str
    port: int

    @property
    def is_ip(self) -> bool:
        """Whether the host is an IP address and needs no DNS."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    def to_envoy(self) -> dict[str, Any]:
        """Envoy's `config.core.v3.Address`."""
        return {"socket_address": {"address": self.host, "port_value": self.port}}


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix domain socket."""

    path: str

    def to_envoy(self) -> dict[str, Any]:
        """Envoy's `config.core.v3.Address`."""
        return {"pipe": {"path": self.path}}


Address = TcpAddress | UnixAddress


def parse_address(text: str, *, lowest_port: int = 1) -> Address:
    """Reads `host:port`, `[ipv6]:port` or `unix:/path`; raises ValueError that says what was expected.

    `lowest_port`: 0 where somebody listens and a free port will do.
    """
    if text.startswith(UNIX_PREFIX):
        return _parse_unix(text)
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not lowest_port <= int(port) < 65536:
        raise ValueError(f"expected host:port (port {lowest_port} to 65535) or unix:/path, got {text!r}")
    return TcpAddress(host, int(port))


def _parse_unix(text: str) -> UnixAddress:
    path = text.removeprefix(UNIX_PREFIX)
    if not path.startswith("/"):
        raise ValueError(f"expected an absolute path after unix:, got {text!r}")
    if len(path.encode()) > MAX_UNIX_PATH_BYTES:
        raise ValueError(f"a Unix socket's path has at most {MAX_UNIX_PATH_BYTES} bytes, got {len(path.encode())}")
    return UnixAddress(path)
