"""Promotions one after the other under load: no request fails, and memory stays where it is.

`make soak` makes 1,000 of them; otherwise there are a few.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from pathlib import Path

import grpc.aio
import pytest

from modelyard.core.channels import aio_channel, fixed_token
from modelyard.oip.service import AioInferenceStub
from modelyard.registry.application import open_registry
from modelyard.v1 import model_service_pb2 as pb
from support import graphs
from support.grpc_server import serve
from support.identity import Identity
from support.inference_pod import infer_request, output, row
from support.registry import RegistryClient, client, registry_settings
from support.soaked_pod import SoakedPod

SWAPS = int(os.environ.get("MODELYARD_SOAK_SWAPS", "30"))
CALLERS = 4
VERSIONS = 5
SETTLED = 20
"""Swaps after which memory is looked at first: by then everything has been used."""
GROWTH = 1.05 if SWAPS >= 1_000 else 1.15
"""How much more there may be at the end. Few swaps are judged less sharply: they end where memory still settles."""


class Callers:
    """Callers that call until they are cancelled; every answer must be entirely one version's."""

    def __init__(self, stub: AioInferenceStub) -> None:
        self._stub = stub
        self.answered: Counter[int] = Counter()
        self.failed: Counter[str] = Counter()

    async def call(self) -> None:
        """One of them."""
        request = infer_request("scale", row(1, 2))
        while True:
            try:
                response = await self._stub.ModelInfer(request)
            except grpc.aio.AioRpcError as error:
                self.failed[f"{error.code().name}: {error.details()}"] += 1
                continue
            version = int(response.model_version)
            assert output(response) == [[version, 2 * version]]
            self.answered[version] += 1


async def publish(registry: RegistryClient) -> None:
    for factor in range(1, VERSIONS + 1):
        digest = await registry.upload(graphs.scale(factor))
        await registry.create_version("models/scale", digest=digest, alias="live" if factor == 1 else "")


async def promote(registry: RegistryClient, version: int) -> None:
    """Returns with the receipt."""
    request = pb.PromoteModelVersionRequest(name=f"models/scale/versions/{version}")
    told = [message async for message in registry.models.PromoteModelVersion(request)]
    assert told[-1].served


@pytest.mark.slow
@pytest.mark.timeout(180 + 3 * SWAPS)
async def test_swaps_fail_no_request_and_leave_no_memory_behind(identity: Identity, tmp_path: Path) -> None:
    settings = registry_settings(identity, tmp_path, watch_interval_s=0.02)
    async with (
        open_registry(settings) as registry,
        serve(registry.service(), identity) as address,
        client(address, registry, identity) as publisher,
    ):
        await publish(publisher)
        async with SoakedPod(address, identity, tmp_path / "pod") as pod:
            token = fixed_token(identity.token("predictor"))
            async with aio_channel(pod.address, token) as channel:
                callers = Callers(AioInferenceStub(channel))
                memory = await swap_under_load(publisher, callers, pod)
    print(f"{SWAPS} swaps, {callers.answered.total()} answers, memory: {memory}")
    assert callers.failed == Counter()
    assert set(callers.answered) == set(range(1, VERSIONS + 1))
    assert memory[-1].total() <= GROWTH * memory[0].total()


async def swap_under_load(registry: RegistryClient, callers: Callers, pod: SoakedPod) -> list[Counter[str]]:
    """Promotes one version after the other; the pod's memory after `SETTLED` swaps, at ten moments, and at the end."""
    await promote(registry, 1)
    tasks = [asyncio.create_task(callers.call()) for _ in range(CALLERS)]
    versions = itertools.cycle([*range(2, VERSIONS + 1), 1])
    looks = {SETTLED, SWAPS, *range(SWAPS // 10, SWAPS, max(1, SWAPS // 10))}
    memory = []
    try:
        for swap in range(1, SWAPS + 1):
            await promote(registry, next(versions))
            if swap in looks and swap >= SETTLED:
                memory.append(pod.memory_bytes())
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [end for end in ends if not isinstance(end, asyncio.CancelledError)] == []
    return memory
