"""Puts the pod together: what is opened here is closed here, behind the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc.aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from modelyard.core.channels import TokenFile, aio_channel, no_token
from modelyard.core.logs import get_logger
from modelyard.core.permissions import permissions_of
from modelyard.core.serving import Service
from modelyard.core.tokens import Caller
from modelyard.oip.pool import pool_with
from modelyard.oip.service import SERVICE_NAME, add_inference_servicer
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.v1.model_service_pb2_grpc import ModelServiceStub

from .artifacts import ArtifactCache
from .desired import DesiredState
from .loading import Loader
from .prediction import Predictor
from .readiness import Readiness
from .reconcile import Reconciler
from .servicer import Inference
from .settings import InferenceSettings
from .table import ServingTable
from .watch import RegistryWatch

_PREDICTOR = frozenset({"predictor"})
ANONYMOUS_PREDICTOR = Caller("anonymous", "", _PREDICTOR, permissions_of(_PREDICTOR), "", float("inf"))
"""Who a caller without a token is taken for when `anonymous_predict` is set."""

log = get_logger()


@asynccontextmanager
async def build(settings: InferenceSettings) -> AsyncIterator[Service]:
    """A pod that follows its registry, ready to be served.

    Raises WrongState if the cache folder is in use or the device is not there.
    """
    async with AsyncExitStack() as stack:
        metadata = TokenFile(settings.token_file).metadata if settings.token_file else no_token
        channel = await stack.enter_async_context(aio_channel(settings.registry_address, metadata))
        artifacts = ArtifactCache(
            settings.cache_dir, ArtifactServiceStub(channel), limit_bytes=settings.cache_limit_bytes
        )
        stack.callback(artifacts.close)
        table = ServingTable()
        loader = Loader(artifacts, settings)
        reconciler = Reconciler(
            table, loader, parallel_loads=settings.parallel_loads,
            retry_first_s=settings.load_retry_first_s, retry_limit_s=settings.load_retry_limit_s,
        )  # fmt: skip
        stack.push_async_callback(reconciler.stop)
        readiness = Readiness(table)
        reconciler.observers.append(lambda: readiness.update(settled=reconciler.settled()))
        await readiness.update(settled=False)
        await stack.enter_async_context(_following(settings, channel, table, reconciler))
        servicer = Inference(
            table, Predictor(table), reconciler, readiness,
            options=loader.options, request_threads=settings.request_threads,
        )  # fmt: skip
        yield _service(servicer, readiness, anonymous=settings.anonymous_predict)


@asynccontextmanager
async def _following(
    settings: InferenceSettings, channel: grpc.aio.Channel, table: ServingTable, reconciler: Reconciler
) -> AsyncIterator[None]:
    """Runs what keeps the table equal to what the registry wants, beginning with what it wanted last."""
    desired = DesiredState(settings.cache_dir / "desired.binpb")
    if desired.restore():
        log.info("going on with the last known state", models=len(desired.models))
        reconciler.want(desired.models, desired.models)
    watch = RegistryWatch(
        ModelServiceStub(channel), desired, table, reconciler, pod=settings.pod, silence_s=settings.watch_silence_s
    )
    tasks = [asyncio.create_task(reconciler.run()), asyncio.create_task(watch.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _service(servicer: Inference, readiness: Readiness, *, anonymous: bool) -> Service:
    def register(server: grpc.aio.Server) -> None:
        add_inference_servicer(servicer, server)

    return Service(
        register,
        [SERVICE_NAME],
        health=readiness,
        anonymous=ANONYMOUS_PREDICTOR if anonymous else None,
        descriptor_pool=pool_with(file.DESCRIPTOR for file in (health_pb2, reflection_pb2)),
        announce=False,
    )
