"""The health probe of the containers."""

from __future__ import annotations

import asyncio

from modelyard.core.probe import probe
from modelyard.core.serving import Service
from support.grpc_server import serve
from support.identity import Identity


async def test_a_serving_program_is_well_and_an_unknown_service_is_not(identity: Identity) -> None:
    service = Service(lambda server: None, ["modelyard.v1.TrainingService"])
    async with serve(service, identity) as address:
        assert await asyncio.to_thread(probe, address, "modelyard.v1.TrainingService") == ""
        assert "NOT_FOUND" in await asyncio.to_thread(probe, address, "other")


async def test_a_draining_program_says_so(identity: Identity) -> None:
    service = Service(lambda server: None, [])
    async with serve(service, identity) as address:
        await service.health.drain()
        assert await asyncio.to_thread(probe, address) == "NOT_SERVING"


def test_a_program_that_is_not_there_is_unavailable() -> None:
    assert probe("unix:/nonexistent.sock", timeout_s=0.3).startswith(("UNAVAILABLE", "DEADLINE_EXCEEDED"))
