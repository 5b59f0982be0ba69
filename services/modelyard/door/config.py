"""The whole Envoy configuration (`config.bootstrap.v3.Bootstrap`), as plain data from the settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .listener import listener
from .settings import DoorSettings
from .upstreams import clusters


def bootstrap(settings: DoorSettings, admin_socket: Path) -> dict[str, Any]:
    """The configuration of one Envoy whose admin interface listens on `admin_socket`."""
    return {
        "node": {"id": "door", "cluster": "modelyard"},
        "admin": {"address": {"pipe": {"path": str(admin_socket), "mode": 0o600}}},
        "static_resources": {"listeners": [listener(settings)], "clusters": clusters(settings)},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3"
                        ".DownstreamConnectionsConfig",
                        "max_active_downstream_connections": settings.max_connections,
                    },
                }
            ]
        },
    }


def render(config: dict[str, Any]) -> str:
    """The configuration as JSON, which Envoy reads from a `.json` file."""
    return json.dumps(config, indent=2) + "\n"
