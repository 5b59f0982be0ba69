"""A pod that serves the conformance suite's reference models, in the background, for tests that block."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard.conformance.models.graphs import reference_graph
from modelyard.conformance.reference import MODELS

from .background import background_loop
from .grpc_server import serve
from .identity import Identity
from .inference_pod import running_pod
from .served_registry import ServedRegistry


@dataclass(frozen=True)
class ConformancePod:
    """Where it listens, and a token that may do everything."""

    address: str
    token: str


@contextmanager
def conformance_pod(folder: Path) -> Iterator[ConformancePod]:
    """A running pod with every reference model ready and shared memory allowed."""
    loop = background_loop()
    ready: Future[ConformancePod] = Future()
    done = asyncio.Event()
    serving = asyncio.run_coroutine_threadsafe(_serve(folder, ready, done), loop)
    try:
        yield ready.result(timeout=120)
    finally:
        loop.call_soon_threadsafe(done.set)
        serving.result(timeout=60)


async def _serve(folder: Path, ready: Future[ConformancePod], done: asyncio.Event) -> None:
    """Everything of the pod is entered and left in one task."""
    try:
        (folder / "identity").mkdir()
        identity, registry = Identity.create(folder / "identity"), ServedRegistry()
        async with (
            serve(registry.service(), identity) as address,
            running_pod(address, identity, folder / "pod", system_shared_memory=True) as pod,
        ):
            for model in MODELS:
                registry.add(model.full_name, reference_graph(model))
            for model in MODELS:
                await pod.until_ready(model.full_name)
            ready.set_result(ConformancePod(pod.address, identity.token("admin")))
            await done.wait()
    except BaseException as error:
        if not ready.done():
            ready.set_exception(error)
        raise
