"""Health of a model by its id, from the gateway, as real pods tell it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from modelyard.core.health import NOT_SERVING, SERVICE_UNKNOWN, SERVING, Health
from modelyard.core.serving import Service
from modelyard.oip import open_inference_pb2 as oip
from support import graphs
from support.gateway import GatewayClient, gateway_client, gateway_settings, served_gateway
from support.grpc_server import serve
from support.identity import Identity
from support.inference_pod import Pod, running_pod
from support.served_registry import ServedRegistry
from support.waiting import eventually


@asynccontextmanager
async def gateway_beside(identity: Identity, folder: Path, *addresses: str) -> AsyncIterator[GatewayClient]:
    """A gateway with these pods, called without a token."""
    settings = gateway_settings(identity, folder, inference_addresses=",".join(addresses))
    async with served_gateway(settings, identity) as (_gateway, address), gateway_client(address, "") as client:
        yield client


async def check(caller: GatewayClient, model: str) -> int | grpc.StatusCode:
    try:
        return int((await caller.health.Check(health_pb2.HealthCheckRequest(service=model))).status)
    except grpc.aio.AioRpcError as error:
        return error.code()


async def until(stream: Any, wanted: int) -> list[int]:
    """What a watch tells up to the first time that it is this."""
    told: list[int] = []
    while wanted not in told:
        told.append((await stream.read()).status)
    return told


@pytest.fixture
def served() -> ServedRegistry:
    """What the pods should serve."""
    return ServedRegistry()


@pytest.fixture
async def store_address(served: ServedRegistry, identity: Identity) -> AsyncIterator[str]:
    """Where the pods hear of it."""
    async with serve(served.service(), identity) as address:
        yield address


@pytest.fixture
def sockets(tmp_path: Path) -> tuple[str, str]:
    """Where two pods listen, when they do."""
    return f"unix:{tmp_path}/first.sock", f"unix:{tmp_path}/second.sock"


@pytest.fixture
async def caller(identity: Identity, tmp_path: Path, sockets: tuple[str, str]) -> AsyncIterator[GatewayClient]:
    """A gateway with two pods that do not run yet."""
    async with gateway_beside(identity, tmp_path, *sockets) as client:
        yield client


@asynccontextmanager
async def pod_at(socket: str, store_address: str, identity: Identity, folder: Path) -> AsyncIterator[Pod]:
    """A real pod."""
    name = Path(socket).stem
    async with running_pod(store_address, identity, folder / name, listen=socket) as pod:
        await pod.channel.channel_ready()  # gRPC lets a moment pass after an attempt that failed, the gateway's too
        yield pod


async def test_a_model_of_a_pod_is_served_and_an_unknown_one_not_found(
    served: ServedRegistry, store_address: str, identity: Identity, tmp_path: Path,
    caller: GatewayClient, sockets: tuple[str, str],
) -> None:  # fmt: skip
    served.add("double", graphs.scale(2))
    served.add("broken", b"no graph")
    async with pod_at(sockets[0], store_address, identity, tmp_path) as pod:
        await pod.until_ready("double")
        await pod.until_state("broken", 1, "UNAVAILABLE")
        await eventually(lambda: answers(caller, "double", SERVING))
        assert await check(caller, "broken") == NOT_SERVING
        assert await check(caller, "never-heard-of") is grpc.StatusCode.NOT_FOUND
        listed = await caller.health.List(health_pb2.HealthListRequest())  # type: ignore[attr-defined]  # set by itself
        assert "double" not in listed.statuses


async def answers(caller: GatewayClient, model: str, wanted: int | grpc.StatusCode) -> bool:
    return await check(caller, model) == wanted


async def test_a_watch_follows_a_model_across_pods_that_come_and_go(
    served: ServedRegistry, store_address: str, identity: Identity, tmp_path: Path,
    caller: GatewayClient, sockets: tuple[str, str],
) -> None:  # fmt: skip
    stream = caller.health.Watch(health_pb2.HealthCheckRequest(service="double"))
    assert (await stream.read()).status == SERVICE_UNKNOWN
    async with pod_at(sockets[0], store_address, identity, tmp_path) as first:
        served.add("double", graphs.scale(2))
        assert set((await until(stream, SERVING))[:-1]) <= {NOT_SERVING}
        async with pod_at(sockets[1], store_address, identity, tmp_path) as second:
            await second.until_ready("double")
            await first.stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="double"))
            await eventually(lambda: answers(caller, "double", SERVING))
        # The one that served has gone; the one that is left does not.
        assert await until(stream, NOT_SERVING) == [NOT_SERVING]
        await first.stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="double"))
        assert await until(stream, SERVING) == [SERVING]
        served.point("double", "live", None)
        assert set((await until(stream, SERVICE_UNKNOWN))[:-1]) <= {NOT_SERVING}
    stream.cancel()


async def test_a_known_model_does_not_serve_while_every_pod_is_away(
    served: ServedRegistry, store_address: str, identity: Identity, tmp_path: Path,
    caller: GatewayClient, sockets: tuple[str, str],
) -> None:  # fmt: skip
    assert await check(caller, "double") is grpc.StatusCode.UNAVAILABLE
    served.add("double", graphs.scale(2))
    async with pod_at(sockets[0], store_address, identity, tmp_path):
        await eventually(lambda: answers(caller, "double", SERVING))
    await eventually(lambda: answers(caller, "double", NOT_SERVING))


async def test_without_pods_every_model_is_unknown(identity: Identity, tmp_path: Path) -> None:
    async with gateway_beside(identity, tmp_path) as caller:
        assert await check(caller, "double") is grpc.StatusCode.NOT_FOUND


class CountedHealth(Health):
    """Serves `double`, counts how often it is asked for everything, and can be made to answer nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.pending = 0
        self.free = asyncio.Event()
        self.free.set()
        tell = self.servicer.List

        async def counted(request: Any, context: Any) -> Any:
            self.asked += 1
            self.pending += 1
            try:
                await self.free.wait()
                return await tell(request, context)
            finally:
                self.pending -= 1

        self.servicer.List = counted  # type: ignore[method-assign]


@asynccontextmanager
async def counted_pod(identity: Identity, address: str) -> AsyncIterator[CountedHealth]:
    health = CountedHealth()
    async with serve(Service(lambda _server: None, [], health=health), identity, listen=address):
        await health.set("double", serving=True)
        yield health


async def test_a_pod_that_hangs_holds_up_nobody_who_asks_for_what_another_serves(
    identity: Identity, caller: GatewayClient, sockets: tuple[str, str]
) -> None:
    async with counted_pod(identity, sockets[0]) as stuck, counted_pod(identity, sockets[1]):
        await eventually(lambda: answers(caller, "double", SERVING))
        stuck.free.clear()

        async def answered_meanwhile(name: str) -> bool:
            return await check(caller, name) == SERVING and stuck.pending > 0

        await eventually(lambda: answered_meanwhile("double"))
        assert await check(caller, "never-heard-of") is grpc.StatusCode.NOT_FOUND  # when the pod's time is over
        stuck.free.set()


async def test_a_pod_that_is_late_once_is_not_away(
    identity: Identity, caller: GatewayClient, sockets: tuple[str, str]
) -> None:
    async with counted_pod(identity, sockets[0]) as pod:
        await eventually(lambda: answers(caller, "double", SERVING))
        pod.free.clear()
        before = pod.asked
        while pod.asked == before:  # the answer that does not come is awaited, and what it said before still holds
            assert await check(caller, "never-heard-of") is grpc.StatusCode.NOT_FOUND
        assert await check(caller, "double") == SERVING
        await eventually(lambda: answers(caller, "never-heard-of", grpc.StatusCode.UNAVAILABLE))
        assert await check(caller, "double") == NOT_SERVING
        pod.free.set()
        await eventually(lambda: answers(caller, "double", SERVING))


async def test_many_callers_cost_a_pod_no_more_than_one(
    identity: Identity, caller: GatewayClient, sockets: tuple[str, str]
) -> None:
    async with counted_pod(identity, sockets[0]) as pod:
        await eventually(lambda: answers(caller, "double", SERVING))
        loop = asyncio.get_running_loop()
        before, start = pod.asked, loop.time()
        checks = await asyncio.gather(*(check(caller, f"guess-{number}") for number in range(300)))
        streams = [caller.health.Watch(health_pb2.HealthCheckRequest(service=f"guess-{n}")) for n in range(50)]
        for stream in streams:
            assert (await stream.read()).status == SERVICE_UNKNOWN
            stream.cancel()
        assert set(checks) == {grpc.StatusCode.NOT_FOUND}
        assert pod.asked - before <= 2 + (loop.time() - start) / 0.5


async def test_what_cannot_be_a_model_is_asked_of_nobody(
    identity: Identity, caller: GatewayClient, sockets: tuple[str, str]
) -> None:
    async with counted_pod(identity, sockets[0]) as pod:
        assert await check(caller, "not.a-model") is grpc.StatusCode.NOT_FOUND
        assert pod.asked == 0
