"""Fixtures of the gateway's integration tests: real gRPC, a real registry, a real broker, both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import grpc.aio
import pytest

from modelyard.gateway.application import Gateway
from modelyard.registry.application import open_registry
from modelyard.v1 import model_service_pb2
from support.gateway import (
    TABLE,
    GatewayClient,
    Replica,
    gateway_client,
    gateway_settings,
    served_gateway,
)
from support.gateway_database import copy_migrated_sqlite, emptied, migrated_postgres
from support.grpc_server import serve
from support.identity import Identity
from support.postgres_server import PostgresServer, postgres_server
from support.redis_server import RedisServer, redis_server
from support.registry import RegistryClient, client, registry_settings
from support.waiting import eventually


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for all tests that want one."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: PostgresServer) -> str:
    """A database with the schema, for one test after the other."""
    return migrated_postgres(postgres)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A broker."""
    with redis_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of either kind, with the schema and nothing in it."""
    if request.param == "sqlite":
        return copy_migrated_sqlite(tmp_path)
    return emptied(request.getfixturevalue("postgres_url"))


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite database with the schema and nothing in it."""
    return copy_migrated_sqlite(tmp_path)


@pytest.fixture
def registry_address(tmp_path: Path) -> str:
    """Where the registry listens, if there is one."""
    return f"unix:{tmp_path}/registry.sock"


async def _answers(registry: RegistryClient) -> bool:
    """Whether the registry is reached: after it was away, gRPC lets a moment pass before it tries again."""
    with suppress(grpc.aio.AioRpcError):
        await registry.models.ListModels(model_service_pb2.ListModelsRequest())
        return True
    return False


RegistryAt = Callable[[], AbstractAsyncContextManager[RegistryClient]]


@pytest.fixture
def start_registry(registry_address: str, identity: Identity, tmp_path: Path) -> RegistryAt:
    """Starts the registry: each time the same one, on the same data at the same address; with an administrator's
    client."""

    @asynccontextmanager
    async def start() -> AsyncIterator[RegistryClient]:
        async with (
            open_registry(registry_settings(identity, tmp_path)) as registry,
            serve(registry.service(), identity, listen=registry_address) as address,
            client(address, registry, identity) as registry_client,
        ):
            await eventually(lambda: _answers(registry_client))
            yield registry_client

    return start


@pytest.fixture
async def registry(start_registry: RegistryAt) -> AsyncIterator[RegistryClient]:
    """A registry with a dataset `datasets/table`."""
    async with start_registry() as registry_client:
        await registry_client.create_dataset(TABLE)
        yield registry_client


@pytest.fixture
async def served(
    sqlite_url: str, registry_address: str, registry: RegistryClient, identity: Identity, tmp_path: Path
) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway on SQLite beside the registry, its broker away; and where it listens."""
    settings = gateway_settings(identity, tmp_path, database_url=sqlite_url, registry_address=registry_address)
    async with served_gateway(settings, identity) as gateway_and_address:
        yield gateway_and_address


@pytest.fixture
async def admin(served: tuple[Gateway, str], identity: Identity) -> AsyncIterator[GatewayClient]:
    """That gateway, called by an administrator, who may do a worker's work too."""
    async with gateway_client(served[1], identity.token()) as one:
        yield one


@pytest.fixture
async def replicas(
    database_url: str, registry_address: str, registry: RegistryClient, identity: Identity, tmp_path: Path
) -> AsyncIterator[list[Replica]]:
    """Two gateways on one database of either kind, each with an administrator's client."""
    settings = gateway_settings(identity, tmp_path, database_url=database_url, registry_address=registry_address)
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(2):
            gateway, address = await stack.enter_async_context(served_gateway(settings, identity))
            found.append((gateway, await stack.enter_async_context(gateway_client(address, identity.token()))))
        yield found
