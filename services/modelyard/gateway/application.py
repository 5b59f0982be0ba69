"""Puts the gateway together and takes it apart again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc.aio

from modelyard.core.background import running
from modelyard.core.channels import aio_channel
from modelyard.core.database import Database, migrate
from modelyard.core.health import Health
from modelyard.core.logs import get_logger
from modelyard.core.serving import Service
from modelyard.core.tokens import TokenSigner
from modelyard.v1 import access_service_pb2_grpc, training_service_pb2_grpc, worker_service_pb2_grpc

from .access_servicer import AccessServicer
from .cancellation import Cancellation
from .claims import Claims
from .doorbell import CeleryBell
from .doorbells import Doorbell
from .expiry import Expiry
from .explanations import Explanations
from .finishing import Finishing
from .leases import Leases
from .ledger import Ledger
from .metrics import JobMetrics
from .model_health import ModelHealth
from .nodes import NodePatience
from .notices import Notices
from .outbox import Bell, Outbox
from .pausing import Pausing
from .planning import RegistryPlanner
from .presence import Workers
from .queueing_converters import remaining_s
from .reconciler import Reconciler
from .reflection import INFERENCE_SERVICE, OWN_SERVICES, PUBLIC_SERVICES, REGISTRY_SERVICES, public_pool
from .registry import Registry
from .removal import Removal
from .reports import Reports
from .retries import Retries
from .routines import Routine
from .scheduling import Queues
from .settings import GatewaySettings
from .submission import Submissions
from .tenants import Bounds, Tenants
from .tokens import Tokens
from .training_servicer import TrainingServicer
from .upstreams import Upstreams
from .watch import Watch
from .worker_servicer import WorkerServicer

MIGRATIONS = "modelyard.gateway:migrations"

_SETTLE_INTERVAL_S = 0.5

log = get_logger()


class Gateway:
    """Everything the gateway consists of, on an open database."""

    def __init__(self, settings: GatewaySettings, database: Database, registry: Registry, bell: Bell) -> None:
        self.settings = settings
        self.notices = Notices()
        self.stopping = asyncio.Event()
        self.health = Health()
        self._outbox = Outbox(database, bell)
        self._relay = Routine("doorbells", settings.outbox_interval_s, self._outbox.relay)
        self._relay_left = Routine("doorbells left behind", settings.outbox_interval_s, self._outbox.relay_left)
        self.queues = Queues(settings.queues, settings.queue_max_running)
        self.defaults = Bounds(
            max_running_jobs=settings.tenant_max_running_jobs, max_waiting_jobs=settings.tenant_max_waiting_jobs
        )
        patience = NodePatience(
            settings.node_faults, within_s=settings.node_exclusion_s, excluded_s=settings.node_exclusion_s
        )
        self.workers = Workers(database, report_interval_s=settings.report_interval_s, node_patience=patience)
        self._metrics = JobMetrics(database, self.queues, self.workers)
        self.ledger = Ledger(
            database,
            on_events=self.notices.announce,
            on_doorbell=self._ring,
            on_edit=self._metrics.written,
            keep_last_checkpoint_s=settings.checkpoint_retention_s,
        )
        retries = Retries(
            infrastructure_retries=settings.infrastructure_retries, delay_s=settings.retry_delay_s
        )  # fmt: skip
        self.leases = Leases(self.ledger, retries, lease_s=settings.lease_s)
        self.finishing = Finishing(self.ledger, registry, retries, lease_us=self.leases.duration_us)
        self._removal = Removal(database, registry, on_removed=self._metrics.removed)
        self._reconciler = Reconciler(
            database, bell, self.queues, self.defaults,
            ring_again_s=settings.ring_again_s, on_doorbell=self._relay_left.wake,
        )  # fmt: skip
        self._submissions = Submissions(self.ledger, RegistryPlanner(registry), self.defaults)
        self._tenants = Tenants(database, self.defaults, on_doorbell=self._ring)
        self._tokens = Tokens(database, TokenSigner.from_file(settings.signing_key_file))

    def service(self) -> Service:
        """What is served."""
        return Service(
            register=self._register,
            names=OWN_SERVICES,
            reflected=PUBLIC_SERVICES,
            descriptor_pool=public_pool(),
            health=self.health,
            stopping=self.stopping,
            metrics={"jobs": self._metrics},
        )

    def background(self) -> Sequence[Coroutine[Any, Any, None]]:
        """What runs beside the server."""
        settings, database = self.settings, self.ledger.database
        inspect = settings.ring_again_s / 3
        routines = (
            self._relay,
            self._relay_left,
            Routine("rung doorbells", _SETTLE_INTERVAL_S, self._outbox.settle),
            Routine("reaper", settings.reap_interval_s, self.leases.reap, on_error=self.leases.give_grace),
            Routine("checkpoint removal", settings.checkpoint_removal_interval_s, self._removal.remove_due),
            Routine("finisher", settings.reap_interval_s, self.finishing.publish_stalled),
            Routine("expiry", settings.reap_interval_s, Expiry(self.ledger).expire),
            Routine("workers", settings.report_interval_s, self.workers.forget),
            Routine("reconciler", inspect, self._reconciler.ring_again),
            Routine("notices", settings.watch_interval_s, lambda: self.notices.poll(database)),
        )
        upstreams = Upstreams(
            self.health,
            {
                **dict.fromkeys(REGISTRY_SERVICES, (settings.registry_address,)),
                INFERENCE_SERVICE: settings.inference_addresses,
            },
        )
        models = ModelHealth(settings.inference_addresses, on_change=self.health.wake)
        self.health.refer_to(models)
        return (*(routine.run() for routine in routines), upstreams.run(), models.run(), self._end_watches())

    async def close(self) -> None:
        """Ends what is under way and writes down what is done. To be called when nothing is served any more."""
        await self.finishing.close()
        try:
            await self._outbox.settle()
        except Exception as error:  # noqa: BLE001 - the doorbells ring once more, which is harmless
            log.warning("rung doorbells stay, and ring again", reason=str(error))

    def _ring(self, doorbell: Doorbell) -> None:
        self._outbox.add(doorbell)
        self._relay.wake()

    async def _end_watches(self) -> None:
        await self.stopping.wait()
        self.notices.close()

    def _register(self, server: grpc.aio.Server) -> None:
        settings, ledger = self.settings, self.ledger
        training = TrainingServicer(
            ledger,
            self._submissions,
            Cancellation(ledger),
            Pausing(ledger),
            Watch(ledger, self.notices),
            self.queues,
            self.workers,
            Explanations(ledger, self.workers, self.queues, self.defaults, remaining_s),
        )
        worker = WorkerServicer(
            Claims(ledger, self.leases, self.queues, self.defaults, self.workers, on_claim=self._metrics.claimed),
            Reports(ledger, lease_us=self.leases.duration_us),
            self.finishing,
            self.workers,
            settings.lease_s,
            settings.report_interval_s,
        )
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server(training, server)
        worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(worker, server)
        access_service_pb2_grpc.add_AccessServiceServicer_to_server(AccessServicer(self._tokens, self._tenants), server)


@asynccontextmanager
async def open_gateway(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """A gateway on its migrated database, with its background work running; all closed at the end."""
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url)
        stack.push_async_callback(database.close)
        await migrate(database, MIGRATIONS)
        channel = await stack.enter_async_context(aio_channel(settings.registry_address))
        signer = TokenSigner.from_file(settings.signing_key_file)
        bell = CeleryBell(settings.broker_url)
        stack.push_async_callback(bell.close)
        registry = Registry(
            channel,
            signer,
            timeout_s=settings.registry_timeout_s,
            publication_timeout_s=settings.publication_timeout_s,
        )
        gateway = Gateway(settings, database, registry, bell)
        stack.push_async_callback(gateway.close)
        await stack.enter_async_context(running(*gateway.background()))
        yield gateway


@asynccontextmanager
async def build(settings: GatewaySettings) -> AsyncIterator[Service]:
    """The service for `modelyard.core.serving`."""
    async with open_gateway(settings) as gateway:
        yield gateway.service()
