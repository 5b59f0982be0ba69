"""What the gateway says of itself and of the services behind the door."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from modelyard.core.channels import sync_channel
from modelyard.core.serving import Service
from modelyard.gateway.reflection import INFERENCE_SERVICE, OWN_SERVICES, PUBLIC_SERVICES, REGISTRY_SERVICES
from support.gateway import GatewayClient, gateway_client, gateway_settings, served_gateway
from support.grpc_server import serve
from support.identity import Identity
from support.registry import RegistryClient, refusal
from support.registry_program import RegistryProgram
from support.waiting import eventually

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def pod_address(tmp_path: Path) -> str:
    """Where the second of two inference pods listens, when it does."""
    return f"unix:{tmp_path}/pod.sock"


@pytest.fixture
async def caller(
    sqlite_url: str, registry_address: str, pod_address: str, identity: Identity, tmp_path: Path
) -> AsyncIterator[GatewayClient]:
    """A gateway whose registry and pods do not run (yet), called without a token."""
    settings = gateway_settings(
        identity,
        tmp_path,
        database_url=sqlite_url,
        registry_address=registry_address,
        inference_addresses=f"unix:{tmp_path}/never.sock,{pod_address}",
    )
    async with (
        served_gateway(settings, identity) as (_gateway, address),
        gateway_client(address, "") as client,
    ):
        yield client


async def _becomes(caller: GatewayClient, name: str, status: int) -> None:
    async def is_it() -> bool:
        answer = await caller.health.Check(health_pb2.HealthCheckRequest(service=name))
        return bool(answer.status == status)

    await eventually(is_it)


async def test_its_own_services_serve_whatever_the_others_do(caller: GatewayClient) -> None:
    for name in ("", *OWN_SERVICES):
        await _becomes(caller, name, SERVING)
    for name in (*REGISTRY_SERVICES, INFERENCE_SERVICE):
        await _becomes(caller, name, NOT_SERVING)


async def test_the_registrys_health_is_followed(
    caller: GatewayClient, start_registry: Callable[[], AbstractAsyncContextManager[RegistryClient]]
) -> None:
    stream = caller.health.Watch(health_pb2.HealthCheckRequest(service=REGISTRY_SERVICES[0]))
    assert (await stream.read()).status == NOT_SERVING
    async with start_registry():
        assert (await stream.read()).status == SERVING
        for name in REGISTRY_SERVICES:
            await _becomes(caller, name, SERVING)
    assert (await stream.read()).status == NOT_SERVING
    async with start_registry():
        assert (await stream.read()).status == SERVING
    stream.cancel()


async def test_a_registry_that_hangs_does_not_count_as_serving(
    caller: GatewayClient, identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.gateway.upstreams._STREAM_S", 0.5)
    with RegistryProgram(tmp_path, identity) as registry:
        await _becomes(caller, REGISTRY_SERVICES[0], SERVING)
        registry.process.send_signal(signal.SIGSTOP)
        await _becomes(caller, REGISTRY_SERVICES[0], NOT_SERVING)
        registry.process.send_signal(signal.SIGCONT)
        await _becomes(caller, REGISTRY_SERVICES[0], SERVING)


async def test_one_pod_that_serves_is_enough(caller: GatewayClient, pod_address: str, identity: Identity) -> None:
    async with serve(Service(lambda _server: None, []), identity, listen=pod_address):
        await _becomes(caller, INFERENCE_SERVICE, SERVING)
    await _becomes(caller, INFERENCE_SERVICE, NOT_SERVING)


async def test_an_unknown_service_is_not_found(caller: GatewayClient) -> None:
    error = await refusal(caller.health.Check(health_pb2.HealthCheckRequest(service="modelyard.v1.Nothing")))
    assert error.code is grpc.StatusCode.NOT_FOUND


async def test_grpcurl_lists_and_describes_every_public_service(
    sqlite_url: str, identity: Identity, tmp_path: Path
) -> None:
    settings = gateway_settings(identity, tmp_path, database_url=sqlite_url)
    async with served_gateway(settings, identity) as (_gateway, address):
        listed = (await _grpcurl(address, "list")).split()
        assert set(listed) == {
            *PUBLIC_SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
        }  # fmt: skip
        for name in listed:
            assert f"service {name.rpartition('.')[2]} {{" in await _grpcurl(address, "describe", name)
        described = await _grpcurl(address, "describe", "inference.ModelInferRequest")
        assert "raw_input_contents" in described
        assert "WorkerService" not in await _grpcurl(address, "describe")


async def test_reflected_messages_can_be_built_from_the_descriptors_alone(
    sqlite_url: str, identity: Identity, tmp_path: Path
) -> None:
    settings = gateway_settings(identity, tmp_path, database_url=sqlite_url)
    async with served_gateway(settings, identity) as (_gateway, address):
        await asyncio.to_thread(_look_up, address)


def _look_up(address: str) -> None:
    """What a client that has nothing but the address can find out."""
    with sync_channel(address) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        assert "ERROR_REASON_STALE_ATTEMPT" in pool.FindEnumTypeByName("modelyard.v1.ErrorReason").values_by_name
        assert "optimizer" in pool.FindMessageTypeByName("modelyard.v1.TrainingSpec").fields_by_name
        assert "raw_input_contents" in pool.FindMessageTypeByName("inference.ModelInferRequest").fields_by_name


async def test_grpcurl_shows_the_details_of_an_error(sqlite_url: str, identity: Identity, tmp_path: Path) -> None:
    settings = gateway_settings(identity, tmp_path, database_url=sqlite_url)
    async with served_gateway(settings, identity) as (_gateway, address):
        code, _output, errors = await _run_grpcurl(address, "modelyard.v1.TrainingService/ListTrainingJobs")
    assert code != 0
    assert '"reason":"TOKEN_MISSING"' in errors.replace(" ", "")


async def _grpcurl(address: str, *arguments: str) -> str:
    """What the real grpcurl answers."""
    code, output, errors = await _run_grpcurl(address, *arguments)
    assert code == 0, errors
    return output


async def _run_grpcurl(address: str, *arguments: str) -> tuple[int | None, str, str]:
    """Exit code, standard output and standard error."""
    program = Path(sys.executable).with_name("grpcurl")
    process = await asyncio.create_subprocess_exec(
        program, "-plaintext", address, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()
