"""The health service by its standard, and watchers that cannot hold anybody up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard.core.channels import aio_channel
from modelyard.core.errors import RemoteError, Unavailable
from modelyard.core.health import MOST_LISTED, NOT_SERVING, SERVICE_UNKNOWN, SERVING, Health
from modelyard.core.serving import Service
from support.grpc_server import serve
from support.identity import Identity
from support.waiting import eventually

Request = health_pb2.HealthCheckRequest


@asynccontextmanager
async def watched(identity: Identity) -> AsyncIterator[tuple[Health, health_pb2_grpc.HealthStub]]:
    service = Service(lambda server: None, ["a.Service"])
    async with serve(service, identity) as address, aio_channel(address) as channel:
        yield service.health, health_pb2_grpc.HealthStub(channel)


async def check(stub: health_pb2_grpc.HealthStub, name: str) -> RemoteError | int:
    try:
        return int((await stub.Check(Request(service=name))).status)
    except grpc.aio.AioRpcError as error:
        return RemoteError.from_rpc(error)


async def test_check_answers_what_was_said_and_not_found_for_anything_else(identity: Identity) -> None:
    async with watched(identity) as (health, stub):
        assert [await check(stub, name) for name in ("", "a.Service")] == [SERVING, SERVING]
        await health.set("model", serving=False)
        assert await check(stub, "model") == NOT_SERVING
        await health.forget("model")
        unknown = await check(stub, "model")
    assert isinstance(unknown, RemoteError)
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_watch_tells_every_change_and_that_nothing_is_known(identity: Identity) -> None:
    async with watched(identity) as (health, stub):
        watch = stub.Watch(Request(service="model"))
        told = [(await watch.read()).status]
        for serving in (False, True, True, False):
            await health.set("model", serving=serving)
            if told[-1] != (SERVING if serving else NOT_SERVING):
                told.append((await watch.read()).status)
        await health.forget("model")
        told.append((await watch.read()).status)
        watch.cancel()
    assert told == [SERVICE_UNKNOWN, NOT_SERVING, SERVING, NOT_SERVING, SERVICE_UNKNOWN]


async def test_after_the_drain_nothing_serves_any_more_whatever_is_said(identity: Identity) -> None:
    async with watched(identity) as (health, stub):
        watch = stub.Watch(Request(service="a.Service"))
        assert (await watch.read()).status == SERVING
        await health.drain()
        assert (await watch.read()).status == NOT_SERVING
        await health.set("a.Service", serving=True)
        await health.forget("")
        assert [await check(stub, name) for name in ("", "a.Service")] == [NOT_SERVING, NOT_SERVING]


class Others:
    """What others say, and how many follow it."""

    def __init__(self) -> None:
        self.statuses: dict[str, int] = {}
        self.away = False
        self.followers = 0

    async def ask(self, name: str) -> int | None:
        if self.away:
            raise Unavailable("nobody can be asked")
        return self.told(name)

    def told(self, name: str) -> int | None:
        return self.statuses.get(name)

    @contextmanager
    def followed(self) -> Iterator[None]:
        self.followers += 1
        try:
            yield
        finally:
            self.followers -= 1


async def test_others_are_asked_for_unknown_names_only_and_followed_while_somebody_watches(identity: Identity) -> None:
    others = Others()
    async with watched(identity) as (health, stub):
        health.refer_to(others)
        others.statuses = {"model": NOT_SERVING, "a.Service": NOT_SERVING}
        assert [await check(stub, name) for name in ("model", "a.Service")] == [NOT_SERVING, SERVING]
        watch, own = stub.Watch(Request(service="model")), stub.Watch(Request(service="a.Service"))
        assert [(await watch.read()).status, (await own.read()).status] == [NOT_SERVING, SERVING]
        assert others.followers == 1
        others.statuses = {"model": SERVING}
        health.wake()
        assert (await watch.read()).status == SERVING
        watch.cancel()
        own.cancel()

        async def left() -> bool:
            return others.followers == 0

        await eventually(left)


async def test_a_watch_goes_on_when_nobody_can_be_asked(identity: Identity) -> None:
    others = Others()
    others.away = True
    async with watched(identity) as (health, stub):
        health.refer_to(others)
        refused = await check(stub, "model")
        assert isinstance(refused, RemoteError)
        assert refused.code is grpc.StatusCode.UNAVAILABLE
        watch = stub.Watch(Request(service="model"))
        assert (await watch.read()).status == SERVICE_UNKNOWN
        others.statuses = {"model": SERVING}
        health.wake()
        assert (await watch.read()).status == SERVING
        watch.cancel()


async def test_list_names_everything_up_to_a_limit(identity: Identity) -> None:
    async with watched(identity) as (health, stub):
        await health.set("model", serving=False)
        answer = await stub.List(health_pb2.HealthListRequest())
        assert {name: status.status for name, status in answer.statuses.items()} == {
            "": SERVING, "a.Service": SERVING, "model": NOT_SERVING,
        }  # fmt: skip
        for number in range(MOST_LISTED):
            await health.set(f"model-{number}", serving=True)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.List(health_pb2.HealthListRequest())
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_watcher_that_does_not_read_holds_nobody_up() -> None:
    health = Health()
    stuck = health.servicer.Watch(Request(service="model"), None)
    assert (await anext(stuck)).status == SERVICE_UNKNOWN
    # Its transport takes nothing more: the generator is never asked again.
    reading = health.servicer.Watch(Request(service="model"), None)
    told = [(await anext(reading)).status]
    for serving in (True, False, True):
        await health.set("model", serving=serving)
        told.append((await anext(reading)).status)
    assert told == [SERVICE_UNKNOWN, SERVING, NOT_SERVING, SERVING]
    # When it reads again, it hears how things are, not how they were.
    assert (await anext(stuck)).status == SERVING
    health.end_watches()
    assert [answer async for answer in stuck] == []
    assert [answer async for answer in reading] == []


async def test_a_watcher_hears_of_the_drain_before_its_stream_ends() -> None:
    health = Health()
    await health.set("", serving=True)
    watch = health.servicer.Watch(Request(), None)
    assert (await anext(watch)).status == SERVING
    rest = asyncio.create_task(_rest(watch))
    await health.drain()
    health.end_watches()
    assert await rest == [NOT_SERVING]


async def _rest(watch: AsyncIterator[health_pb2.HealthCheckResponse]) -> list[int]:
    return [answer.status async for answer in watch]
