"""Fixtures of the registry's integration tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from modelyard.registry.settings import RegistrySettings
from support.identity import Identity
from support.postgres_server import PostgresServer, postgres_server
from support.registry import RegistryClient, registry_settings, running_registry
from support.s3_server import S3Server, s3_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for all tests that want one."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server for all tests that want one."""
    with s3_server() as server:
        yield server


@pytest.fixture
def sqlite_settings(identity: Identity, tmp_path: Path) -> RegistrySettings:
    """A registry on SQLite and a blob folder."""
    return registry_settings(identity, tmp_path)


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, identity: Identity, tmp_path: Path) -> RegistrySettings:
    """A registry on either database."""
    if request.param == "sqlite":
        return registry_settings(identity, tmp_path)
    server: PostgresServer = request.getfixturevalue("postgres")
    return registry_settings(identity, tmp_path, database_url=server.new_database())


@pytest.fixture
async def registry(settings: RegistrySettings, identity: Identity) -> AsyncIterator[RegistryClient]:
    """A registry on either database, called by an administrator."""
    async with running_registry(settings, identity) as client:
        yield client


@pytest.fixture
async def sqlite_registry(sqlite_settings: RegistrySettings, identity: Identity) -> AsyncIterator[RegistryClient]:
    """A registry on SQLite, called by an administrator: for what the database has no part in."""
    async with running_registry(sqlite_settings, identity) as client:
        yield client
