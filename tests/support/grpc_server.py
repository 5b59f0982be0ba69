"""A service behind real gRPC in the test's own event loop, with the real interceptor, health and reflection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from modelyard.core import serving
from modelyard.core.settings import ServiceSettings

from .identity import Identity


@asynccontextmanager
async def serve(service: serving.Service, identity: Identity, **settings: Any) -> AsyncIterator[str]:
    """Serves on a free loopback port (or `listen=…`) and answers the address; stops at the end."""
    options = {"listen": "127.0.0.1:0", "drain_delay_s": 0, "shutdown_grace_s": 1, **settings}
    running = await serving.start(service, ServiceSettings(token_keys_file=identity.keys_file, **options))
    try:
        yield running.address
    finally:
        await running.stop()
