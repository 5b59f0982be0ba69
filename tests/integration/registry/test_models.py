"""ModelService over gRPC, on SQLite and PostgreSQL."""

from __future__ import annotations

from support.registry import RegistryClient


async def test_smoke(registry: RegistryClient) -> None:
    version = await registry.create_version(alias="live")
    assert version.name == "models/m/versions/1"
    print(version)
