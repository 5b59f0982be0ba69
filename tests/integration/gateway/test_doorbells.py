"""Doorbells through a real broker, as Celery workers receive them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
from sqlalchemy import select, update

from modelyard.core.database import Database
from modelyard.core.doorbell import DEFAULT_QUEUE, TASK_NAME, celery_queue
from modelyard.gateway import tables
from modelyard.gateway.application import Gateway
from support.gateway import GatewayClient, expire_leases, gateway_client, gateway_settings, served_gateway
from support.identity import Identity
from support.redis_server import RedisServer
from support.registry import RegistryClient
from support.waiting import eventually


def _messages(redis: RedisServer) -> list[dict[str, Any]]:
    with redis_client.Redis(unix_socket_path=str(redis.socket)) as connection:
        return [json.loads(message) for message in reversed(connection.lrange(celery_queue(DEFAULT_QUEUE), 0, -1))]


def _rung(redis: RedisServer) -> list[str]:
    """Names of the jobs in the queue's messages, oldest first."""
    return [json.loads(message["headers"]["argsrepr"].replace("'", '"'))[0] for message in _messages(redis)]


@pytest.fixture
async def admin(
    redis: RedisServer,
    sqlite_url: str,
    registry: RegistryClient,
    registry_address: str,
    identity: Identity,
    tmp_path: Path,
) -> AsyncIterator[tuple[Gateway, GatewayClient]]:
    """A gateway with everything it needs."""
    settings = gateway_settings(
        identity,
        tmp_path,
        database_url=sqlite_url,
        registry_address=registry_address,
        broker_url=redis.url,
        ring_again_s=0.3,
    )
    async with (
        served_gateway(settings, identity) as (gateway, address),
        gateway_client(address, identity.token()) as one,
    ):
        yield gateway, one


async def _has_rung(redis: RedisServer, *names: str) -> None:
    async def rung() -> bool:
        return set(names) <= set(_rung(redis))

    await eventually(rung)


async def test_a_submission_rings_at_once_with_the_jobs_name_alone(
    sqlite_url: str,
    registry: RegistryClient,
    registry_address: str,
    redis: RedisServer,
    identity: Identity,
    tmp_path: Path,
) -> None:
    settings = gateway_settings(
        identity,
        tmp_path,
        database_url=sqlite_url,
        registry_address=registry_address,
        broker_url=redis.url,
        outbox_interval_s=3600,  # nothing is found by looking
    )
    async with (
        served_gateway(settings, identity) as (_gateway, address),
        gateway_client(address, identity.token()) as client,
    ):
        job = await client.submit()
        await _has_rung(redis, job.name)
    (message,) = _messages(redis)
    assert message["headers"]["task"] == TASK_NAME
    assert message["headers"]["ignore_result"] is True
    assert message["content-type"] == "application/json"
    assert job.spec.model not in json.dumps(message)


async def test_with_the_broker_away_jobs_are_taken_and_rung_for_later(
    sqlite_url: str,
    registry: RegistryClient,
    registry_address: str,
    redis: RedisServer,
    identity: Identity,
    tmp_path: Path,
) -> None:
    settings = gateway_settings(
        identity, tmp_path, database_url=sqlite_url, registry_address=registry_address, broker_url=redis.url
    )
    redis.stop()
    async with (
        served_gateway(settings, identity) as (_gateway, address),
        gateway_client(address, identity.token()) as client,
    ):
        names = [(await client.submit()).name for _ in range(3)]
        redis.start()
        await _has_rung(redis, *names)
        assert sorted(_rung(redis)) == sorted(names)


async def test_a_gateway_that_starts_rings_what_the_one_before_could_not(
    sqlite_url: str,
    registry: RegistryClient,
    registry_address: str,
    redis: RedisServer,
    identity: Identity,
    tmp_path: Path,
) -> None:
    away = gateway_settings(identity, tmp_path, database_url=sqlite_url, registry_address=registry_address)
    async with served_gateway(away, identity) as (_, address), gateway_client(address, identity.token()) as client:
        job = await client.submit()
    database = Database(sqlite_url)
    async with database.write() as connection:
        await connection.execute(update(tables.doorbells).values(due_time=1))
    await database.close()
    there = away.model_copy(update={"broker_url": redis.url})
    async with served_gateway(there, identity):
        await _has_rung(redis, job.name)


async def test_a_broker_that_lost_everything_is_refilled(
    admin: tuple[Gateway, GatewayClient], redis: RedisServer
) -> None:
    gateway, client = admin
    names = [(await client.submit()).name for _ in range(3)]
    await _has_rung(redis, *names)
    redis.stop()
    redis.start()
    await _make_old(gateway)
    await _has_rung(redis, *names)


async def test_a_job_whose_worker_died_is_rung_for_again(
    admin: tuple[Gateway, GatewayClient], redis: RedisServer
) -> None:
    gateway, client = admin
    job = await client.submit()
    await _has_rung(redis, job.name)
    await client.claim(job.name)
    await expire_leases(gateway)

    async def rung_twice() -> bool:
        return _rung(redis) == [job.name, job.name]

    await eventually(rung_twice)


async def test_a_broker_that_is_full_loses_nothing(admin: tuple[Gateway, GatewayClient], redis: RedisServer) -> None:
    gateway, client = admin
    with redis_client.Redis(unix_socket_path=str(redis.socket)) as connection:
        connection.config_set("maxmemory", 1)
        job = await client.submit()

        async def tried_again() -> bool:
            async with gateway.ledger.database.read() as reader:
                waiting = await reader.execute(select(tables.doorbells.c.tries))
                return any(tries > 1 for tries in waiting.scalars())

        await eventually(tried_again)
        connection.config_set("maxmemory", 0)
    await _has_rung(redis, job.name)


async def _make_old(gateway: Gateway) -> None:
    """Lets every queued job have been rung for long ago."""
    async with gateway.ledger.database.write() as connection:
        jobs = tables.jobs
        await connection.execute(update(jobs).where(jobs.c.rung_time.is_not(None)).values(rung_time=1))
