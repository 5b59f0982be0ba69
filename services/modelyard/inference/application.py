"""Puts the pod together: what is opened here is closed here, behind the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc.aio
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from modelyard.core.background import running
from modelyard.core.channels import TokenFile, aio_channel, no_token
from modelyard.core.logs import get_logger
from modelyard.core.permissions import permissions_of
from modelyard.core.serving import Service
from modelyard.core.tokens import Caller
from modelyard.inference.loading.artifacts import ArtifactCache
from modelyard.inference.loading.loader import Loader
from modelyard.inference.observation.machine import MachineMetrics
from modelyard.inference.observation.metrics import PredictionMetrics
from modelyard.inference.observation.pod_metrics import CacheMetrics, LifecycleMetrics, LinkMetrics, MemoryMetrics
from modelyard.inference.observation.shadow_metrics import ShadowMetrics
from modelyard.inference.protocol.servicer import Inference
from modelyard.inference.protocol.shared_memory import SharedMemory
from modelyard.inference.serving.desired import DesiredState
from modelyard.inference.serving.on_demand import OnDemand
from modelyard.inference.serving.readiness import Readiness
from modelyard.inference.serving.reconcile import Reconciler
from modelyard.inference.serving.reporting import PodReporter
from modelyard.inference.serving.shadowing import Shadows
from modelyard.inference.serving.table import ServingTable
from modelyard.inference.serving.watch import RegistryWatch
from modelyard.oip.pool import pool_with
from modelyard.oip.service import SERVICE_NAME, add_inference_servicer
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.v1.model_service_pb2_grpc import ModelServiceStub
from modelyard.v1.pod_service_pb2_grpc import PodServiceStub

from .prediction import Predictor
from .settings import InferenceSettings

_PREDICTOR = frozenset({"predictor"})
ANONYMOUS_PREDICTOR = Caller("anonymous", "", _PREDICTOR, permissions_of(_PREDICTOR), "", float("inf"))
"""Who a caller without a token is taken for when `anonymous_predict` is set."""

log = get_logger()


@dataclass(kw_only=True)
class Pod(Service):
    """What a pod serves."""

    predictor: Predictor
    """For a lane beside gRPC's."""


@asynccontextmanager
async def build(settings: InferenceSettings) -> AsyncIterator[Pod]:
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
        stack.push_async_callback(loader.close)
        lifecycle, predictions = LifecycleMetrics(table), PredictionMetrics(table)
        reconciler = Reconciler(
            table, loader, lifecycle=lifecycle, parallel_loads=settings.parallel_loads,
            retry_first_s=settings.load_retry_first_s, retry_limit_s=settings.load_retry_limit_s,
            turn_s=settings.memory_turn_s,
        )  # fmt: skip
        stack.push_async_callback(reconciler.stop)
        readiness = Readiness(table)
        reconciler.observers.append(lambda: readiness.update(settled=reconciler.settled()))
        await readiness.update(settled=False)
        shadows = Shadows(table)
        stack.push_async_callback(shadows.close)
        watch = await stack.enter_async_context(
            _following(settings, channel, table, reconciler, shadows=shadows, draining=readiness.drained)
        )
        memory = SharedMemory(most_bytes=settings.max_request_bytes) if settings.system_shared_memory else None
        stopping = asyncio.Event()
        on_demand = OnDemand(
            table, reconciler.demand, wait_s=settings.on_demand_wait_s, most_waiters=settings.on_demand_waiters
        )
        reconciler.observers.append(on_demand.note)
        predictor = Predictor(table, predictions, memory=memory, shadows=shadows, on_demand=on_demand)
        servicer = Inference(
            table, predictor, reconciler, readiness,
            options=loader.options,
            stream_requests=settings.stream_requests, stopping=stopping, memory=memory,
        )  # fmt: skip
        pod = _pod(servicer, predictor, readiness, stopping, anonymous=settings.anonymous_predict)
        pod.metrics = {
            "predictions": predictions,
            "versions": lifecycle,
            "shadows": ShadowMetrics(shadows),
            "link": LinkMetrics(readiness, watch),
            "memory": MemoryMetrics(loader.budget),
            "cache": CacheMetrics(artifacts, settings.cache_limit_bytes),
            "machine": MachineMetrics(),
        }
        yield pod


@asynccontextmanager
async def _following(
    settings: InferenceSettings,
    channel: grpc.aio.Channel,
    table: ServingTable,
    reconciler: Reconciler,
    *,
    shadows: Shadows,
    draining: asyncio.Event,
) -> AsyncIterator[RegistryWatch]:
    """Runs what keeps the table equal to what the registry wants, beginning with what it wanted last, and tells it."""
    desired = DesiredState(settings.cache_dir / "desired.binpb")
    reporter = PodReporter(
        PodServiceStub(channel), table, pod=settings.pod, revision=lambda: desired.revision,
        shadows=shadows.reports, draining=draining,
    )  # fmt: skip
    reconciler.observers.insert(0, reporter.note)  # the first: it must see the pass and nothing later
    if desired.restore():
        log.info("going on with the last known state", models=len(desired.models))
        reconciler.want(desired.models, desired.models)
    watch = RegistryWatch(
        ModelServiceStub(channel), desired, table, reconciler, pod=settings.pod, silence_s=settings.watch_silence_s
    )
    async with running(reconciler.run(), watch.run(), reporter.run()):
        yield watch


def _pod(
    servicer: Inference, predictor: Predictor, readiness: Readiness, stopping: asyncio.Event, *, anonymous: bool
) -> Pod:
    def register(server: grpc.aio.Server) -> None:
        add_inference_servicer(servicer, server)

    return Pod(
        register,
        [SERVICE_NAME],
        predictor=predictor,
        health=readiness,
        anonymous=ANONYMOUS_PREDICTOR if anonymous else None,
        descriptor_pool=pool_with(file.DESCRIPTOR for file in (error_details_pb2, health_pb2, reflection_pb2)),
        announce=False,
        stopping=stopping,
    )
