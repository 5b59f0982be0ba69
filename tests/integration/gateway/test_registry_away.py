"""What the gateway does while the registry is away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import grpc
import pytest

from modelyard.gateway.application import Gateway
from modelyard.v1 import model_service_pb2
from support.gateway import (
    TABLE,
    GatewayClient,
    State,
    expire_leases,
    gateway_client,
    gateway_settings,
    served_gateway,
    upload_result,
)
from support.identity import Identity
from support.registry import RegistryClient, refusal
from support.training_specs import regression
from support.waiting import eventually

Code = grpc.StatusCode
RegistryAt = Callable[[], AbstractAsyncContextManager[RegistryClient]]


@pytest.fixture
async def lonely(
    sqlite_url: str, registry_address: str, identity: Identity, tmp_path: Path
) -> AsyncIterator[tuple[Gateway, GatewayClient]]:
    """A gateway whose registry does not run (yet)."""
    settings = gateway_settings(identity, tmp_path, database_url=sqlite_url, registry_address=registry_address)
    async with (
        served_gateway(settings, identity) as (gateway, address),
        gateway_client(address, identity.token()) as admin,
    ):
        yield gateway, admin


async def test_a_submission_is_told_to_try_again(lonely: tuple[Gateway, GatewayClient]) -> None:
    _gateway, admin = lonely
    error = await refusal(admin.submit())
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "UNAVAILABLE")
    assert error.retry_after


async def test_a_wrong_spec_is_said_all_the_same(lonely: tuple[Gateway, GatewayClient]) -> None:
    _gateway, admin = lonely
    error = await refusal(admin.submit(regression(max_epochs=0)))
    assert [violation.field for violation in error.violations] == ["training_job.spec.max_epochs"]


async def test_a_submission_works_as_soon_as_the_registry_is_there(
    lonely: tuple[Gateway, GatewayClient], start_registry: RegistryAt
) -> None:
    _gateway, admin = lonely
    await refusal(admin.submit(request_id="r"))
    async with start_registry() as registry:
        await registry.create_dataset(TABLE)
        job = await _submit_when_reachable(admin, "r")
    assert (await admin.submit(request_id="r")).name == job  # a repetition needs no registry


async def test_a_finish_keeps_the_result_until_the_registry_is_back(
    lonely: tuple[Gateway, GatewayClient], start_registry: RegistryAt
) -> None:
    gateway, admin = lonely
    async with start_registry() as registry:
        await registry.create_dataset(TABLE)
        job = await _submit_when_reachable(admin)
        await admin.claim(job)
        artifact = await upload_result(registry)
    error = await refusal(admin.finish(job, 1, succeeded=artifact))
    assert error.code is Code.UNAVAILABLE
    assert error.retry_after
    assert (await admin.get(job)).state == State.STATE_PUBLISHING
    # The worker has died meanwhile: the gateway publishes by itself, and nobody else gets the job.
    await expire_leases(gateway)
    assert not (await admin.claim(job, "host/2")).claimed
    async with start_registry() as registry:

        async def succeeded() -> bool:
            await expire_leases(gateway)
            return (await admin.get(job)).state == State.STATE_SUCCEEDED

        await eventually(succeeded)
        model = await registry.models.GetModel(model_service_pb2.GetModelRequest(name="models/table"))
        assert model.latest_version == 1
    assert (await admin.finish(job, 1, succeeded=artifact)).model_version == "models/table/versions/1"


async def test_a_restarted_gateway_publishes_what_the_one_before_has_recorded(
    start_registry: RegistryAt, sqlite_url: str, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    settings = gateway_settings(identity, tmp_path, database_url=sqlite_url, registry_address=registry_address)
    async with served_gateway(settings, identity) as (_, address), gateway_client(address, identity.token()) as admin:
        async with start_registry() as registry:
            await registry.create_dataset(TABLE)
            job = await _submit_when_reachable(admin)
            await admin.claim(job)
            artifact = await upload_result(registry)
        await refusal(admin.finish(job, 1, succeeded=artifact))
    async with (
        start_registry(),
        served_gateway(settings, identity) as (gateway, address),
        gateway_client(address, identity.token()) as admin,
    ):

        async def succeeded() -> bool:
            await expire_leases(gateway)
            return (await admin.get(job)).state == State.STATE_SUCCEEDED

        await eventually(succeeded)


async def _submit_when_reachable(admin: GatewayClient, request_id: str = "") -> str:
    """The job's name; the gateway may need a moment to find the registry."""

    async def submitted() -> str:
        with suppress(grpc.aio.AioRpcError):
            return (await admin.submit(request_id=request_id)).name
        return ""

    return await eventually(submitted)
