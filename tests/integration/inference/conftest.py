"""A registry and a pod that follows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.grpc_server import serve
from support.identity import Identity
from support.inference_pod import Pod, running_pod
from support.served_registry import ServedRegistry


@pytest.fixture
async def registry() -> ServedRegistry:
    """An empty registry, served at `registry_address`."""
    return ServedRegistry()


@pytest.fixture
async def registry_address(registry: ServedRegistry, identity: Identity) -> AsyncIterator[str]:
    async with serve(registry.service(), identity) as address:
        yield address


@pytest.fixture
async def pod(registry_address: str, identity: Identity, tmp_path: Path) -> AsyncIterator[Pod]:
    """A running pod with an empty cache."""
    async with running_pod(registry_address, identity, tmp_path / "pod") as pod:
        yield pod
