"""The whole Envoy configuration (`config.bootstrap.v3.Bootstrap`), as plain data from the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.envoy import http

from .listener import NAME, listener
from .settings import DoorSettings
from .upstreams import clusters


def bootstrap(settings: DoorSettings, admin_socket: Path) -> dict[str, Any]:
    """The configuration of one Envoy whose admin interface listens on `admin_socket`."""
    return http.bootstrap(NAME, admin_socket, listener(settings), clusters(settings), settings.max_connections)
