"""The whole Envoy configuration (`config.bootstrap.v3.Bootstrap`), as plain data from the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.envoy import http

from .listener import NAME, Sockets, listeners
from .settings import DoorSettings
from .upstreams import clusters


def bootstrap(settings: DoorSettings, admin_socket: Path, behind: Sockets | None = None) -> dict[str, Any]:
    """The configuration of one Envoy whose admin interface listens on `admin_socket`.

    `behind`: where it listens behind the direct lane; without, it has the door's port.
    """
    found = listeners(settings, behind)
    return http.bootstrap(NAME, admin_socket, found, clusters(settings), settings.max_connections)
