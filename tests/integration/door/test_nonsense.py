"""Callers that send headers which make no sense, beside others on the same connection to a service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from support.door import Yard, open_yard
from support.raw_grpc import RawConnection, raw_connection

GET_MODEL = "/modelyard.v1.ModelService/GetModel"
OK, INTERNAL = 0, 13


@pytest.fixture
def narrow_yard() -> Iterator[Yard]:
    """A door with one thread, and so with one connection to each service."""
    with open_yard(CONCURRENCY="1", PATIENCE_S="0.5") as yard:
        yield yard


async def code(connection: RawConnection, header: str, value: str) -> int | None:
    headers = [("te", "trailers"), ("content-type", "application/grpc"), (header, value)]
    stream = await connection.start(GET_MODEL, headers)
    await stream.send(bytes(5), end=True)
    return (await stream.result()).code


@pytest.mark.parametrize(
    ("header", "nonsense", "good"),
    [("grpc-timeout", "soon", "31S"), ("x-a-bin", "%%%%", "aGFsbG8"), ("grpc-encoding", "snappy", "gzip")],
)
async def test_nonsense_of_one_caller_spoils_no_call_of_others(
    narrow_yard: Yard, header: str, nonsense: str, good: str
) -> None:
    """gRPC's servers keep headers, and what was wrong with them, for later ones on the same connection; and what they
    answer to nonsense is wrong itself for a client that has set the size of that table.
    """
    door = narrow_yard.door
    async with raw_connection(door.address) as one, raw_connection(door.address) as other:
        assert await code(one, header, nonsense) == INTERNAL
        assert [await code(other, header, good) for _ in range(2)] == [OK, OK]
    assert await asyncio.to_thread(door.statistic, "cluster.registry-hosts.upstream_cx_total") == 1
