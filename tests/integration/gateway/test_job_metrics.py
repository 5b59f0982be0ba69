"""What the gateway tells of its jobs and doorbells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update

from modelyard.gateway import tables
from modelyard.gateway.application import Gateway
from modelyard.v1 import training_job_pb2, worker_service_pb2
from support.documentation import documented, types_told
from support.gateway import GatewayClient, gateway_client, gateway_settings, served_gateway
from support.identity import Identity
from support.registry import RegistryClient
from support.scraping import Scrape, lint, told_by


@pytest.fixture
async def both(
    database_url: str, registry: RegistryClient, registry_address: str, identity: Identity, tmp_path: Path
) -> AsyncIterator[tuple[Gateway, GatewayClient]]:
    """A gateway on either database, its broker away, and an administrator's client."""
    settings = gateway_settings(identity, tmp_path, database_url=database_url, registry_address=registry_address)
    async with (
        served_gateway(settings, identity) as (gateway, address),
        gateway_client(address, identity.token()) as client,
    ):
        yield gateway, client


async def told(gateway: Gateway) -> Scrape:
    return await told_by(gateway.service().metrics["jobs"])


def jobs(told: Scrape) -> dict[str, float]:
    """Unfinished jobs by state, without the states that have none."""
    name = "modelyard_gateway_jobs"
    counts = {labels["state"]: told.value(name, **labels) for labels in told.labels(name)}
    assert not counts.keys() & {"SUCCEEDED", "FAILED", "CANCELLED"}
    return {state: count for state, count in counts.items() if count}


async def test_jobs_are_told_by_state_and_when_they_end(both: tuple[Gateway, GatewayClient]) -> None:
    gateway, client = both
    empty = await told(gateway)
    assert (jobs(empty), empty.value("modelyard_gateway_oldest_queued_seconds")) == ({}, 0)
    first, _second, third = [await client.submit() for _ in range(3)]
    assert jobs(await told(gateway)) == {"QUEUED": 3}
    await client.claim(first.name)
    assert jobs(await told(gateway)) == {"QUEUED": 2, "LEASED": 1}
    failed = worker_service_pb2.TrainingFailure(reason=training_job_pb2.TrainingJob.FAILURE_REASON_DATA)
    await client.finish(first.name, 1, failed=failed)
    await client.cancel(third.name)
    after = await told(gateway)
    assert jobs(after) == {"QUEUED": 1}
    assert after.value("modelyard_gateway_jobs_ended_total", state="FAILED", reason="DATA") == 1
    assert after.value("modelyard_gateway_jobs_ended_total", state="CANCELLED", reason="") == 1


async def test_the_job_that_waits_longest_is_told(both: tuple[Gateway, GatewayClient]) -> None:
    gateway, client = both
    job = await client.submit()
    await client.submit()
    async with gateway.ledger.database.write() as connection:
        await connection.execute(
            update(tables.jobs)
            .where(tables.jobs.c.id == job.name.removeprefix("trainingJobs/"))
            .values(update_time=tables.jobs.c.update_time - 3_600_000_000)
        )
    assert 3600 <= (await told(gateway)).value("modelyard_gateway_oldest_queued_seconds") < 3700


async def test_doorbells_that_the_broker_does_not_take_are_told(both: tuple[Gateway, GatewayClient]) -> None:
    gateway, client = both
    for _ in range(2):
        await client.submit()
    assert (await told(gateway)).value("modelyard_gateway_doorbells_pending") == 2


async def test_what_is_told_is_what_the_documentation_says_in_good_form(both: tuple[Gateway, GatewayClient]) -> None:
    gateway, client = both
    await client.cancel((await client.submit()).name)
    answer = await told(gateway)
    assert await asyncio.to_thread(lint, answer.text) == []
    ours = {name: kind for name, kind in documented().items() if name.startswith("modelyard_gateway_")}
    assert types_told(answer) == ours
