"""Puts the registry together and takes it apart again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager

import grpc.aio

from modelyard.core.background import running
from modelyard.core.database import Database, migrate
from modelyard.core.serving import Service
from modelyard.v1 import (
    artifact_service_pb2_grpc,
    dataset_service_pb2_grpc,
    model_service_pb2_grpc,
    pod_service_pb2_grpc,
)

from .aliases import Aliases
from .artifact_servicer import ArtifactServicer
from .blob_store import BlobStore, open_store
from .content.limits import GraphLimits
from .content.sandbox import ContentReader, SandboxLimits
from .dataset_servicer import DatasetServicer
from .datasets import Datasets
from .inspections import Inspections
from .metrics import RegistryMetrics
from .model_servicer import ModelServicer
from .models import Models
from .pod_servicer import PodServicer
from .pods import Pods
from .promotions import Promotions
from .repetition import Repetition
from .settings import RegistrySettings
from .sweeping import Sweeper
from .upload_ledger import UploadLedger
from .uploads import Blobs, UploadLimits
from .versions import Versions
from .watching import Watch

MIGRATIONS = "modelyard.registry:migrations"
SERVICES = (
    "modelyard.v1.ModelService",
    "modelyard.v1.PodService",
    "modelyard.v1.DatasetService",
    "modelyard.v1.ArtifactService",
)

_THREADS = 4
"""For hashing and for files that are copied; both are short, and hashing is bound by the cores."""


class Registry:
    """Everything the registry consists of, on an open database, store and reader."""

    def __init__(self, settings: RegistrySettings, database: Database, store: BlobStore, reader: ContentReader) -> None:
        self.stopping = asyncio.Event()
        ledger = UploadLedger(database, expiry_s=settings.upload_expiry_s)
        repetition = Repetition(database)
        self.watch = Watch(
            database,
            interval_s=settings.watch_interval_s,
            heartbeat_s=settings.heartbeat_s,
            stopping=self.stopping,
        )
        self._metrics = RegistryMetrics(database, self.watch)
        self.sweeper = Sweeper(
            database,
            store,
            ledger,
            interval_s=settings.sweep_interval_s,
            orphan_age_s=settings.orphan_age_s,
            request_retention_s=settings.request_retention_s,
            pod_retention_s=settings.pod_retention_s,
            shadow_retention_s=settings.shadow_retention_s,
        )
        self.blobs = Blobs(store, ledger, _upload_limits(settings))
        self.inspections = Inspections(store, reader)
        self._artifact_servicer = ArtifactServicer(self.blobs)
        self._dataset_servicer = DatasetServicer(Datasets(database, repetition, ledger, self.inspections))
        aliases = Aliases(database, repetition, self.watch.poke)
        self._pod_servicer = PodServicer(Pods(database, lease_s=settings.pod_lease_s, on_served=self.watch.poke))
        self._model_servicer = ModelServicer(
            database,
            Models(database, repetition, self.watch.poke),
            Versions(database, repetition, ledger, self.inspections, self.watch.poke),
            aliases,
            Promotions(database, repetition, aliases, interval_s=settings.watch_interval_s, stopping=self.stopping),
            self.watch,
        )

    def service(self) -> Service:
        """What is served."""
        return Service(
            register=self._register, names=SERVICES, stopping=self.stopping, metrics={"registry": self._metrics}
        )

    def _register(self, server: grpc.aio.Server) -> None:
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self._model_servicer, server)
        pod_service_pb2_grpc.add_PodServiceServicer_to_server(self._pod_servicer, server)
        dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(self._dataset_servicer, server)
        artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(self._artifact_servicer, server)

    async def close(self) -> None:
        """Ends what still runs for callers who have hung up."""
        await self.inspections.close()
        await self.blobs.close()


@asynccontextmanager
async def open_registry(settings: RegistrySettings) -> AsyncIterator[Registry]:
    """A registry on its migrated database, with its background work running; all closed at the end."""
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url)
        stack.push_async_callback(database.close)
        await migrate(database, MIGRATIONS)
        executor = stack.enter_context(ThreadPoolExecutor(_THREADS, thread_name_prefix="registry"))
        store = BlobStore(open_store(settings), executor, scratch=settings.scratch_dir)
        reader = await stack.enter_async_context(ContentReader(_sandbox_limits(settings)))
        registry = Registry(settings, database, store, reader)
        await registry.watch.load()
        stack.push_async_callback(registry.close)
        await stack.enter_async_context(running(registry.watch.run(), registry.sweeper.run()))
        yield registry


@asynccontextmanager
async def build(settings: RegistrySettings) -> AsyncIterator[Service]:
    """The service for `modelyard.core.serving`."""
    async with open_registry(settings) as registry:
        yield registry.service()


def _upload_limits(settings: RegistrySettings) -> UploadLimits:
    return UploadLimits(
        blob_bytes=settings.max_blob_bytes,
        part_bytes=settings.part_bytes,
        tenant_uploads=settings.tenant_uploads,
        tenant_downloads=settings.tenant_downloads,
        idle_s=settings.upload_idle_s,
    )


def _sandbox_limits(settings: RegistrySettings) -> SandboxLimits:
    return SandboxLimits(
        memory_bytes=settings.content_memory_bytes,
        time_s=settings.content_time_s,
        processes=settings.content_processes,
        graph=GraphLimits(domains=settings.operator_domains),
    )
