"""A gateway behind real gRPC in the test's own event loop, beside a real registry, and clients for it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from sqlalchemy import update

from modelyard.core.channels import aio_channel, fixed_token
from modelyard.gateway import tables
from modelyard.gateway.application import Gateway, open_gateway
from modelyard.gateway.settings import GatewaySettings
from modelyard.v1 import (
    access_service_pb2_grpc,
    training_job_pb2,
    training_service_pb2,
    training_service_pb2_grpc,
    training_spec_pb2,
    worker_service_pb2,
    worker_service_pb2_grpc,
)

from .grpc_server import serve
from .identity import Identity
from .onnx_graphs import onnx_bytes
from .registry import RegistryClient
from .training_specs import regression

TABLE = ("a,b,c,y\n" + "".join(f"{i},{i % 7},{i % 5},{2 * i}\n" for i in range(100))).encode()
"""A dataset that fits `training_specs.regression`."""

State = training_job_pb2.TrainingJob.State


def gateway_settings(identity: Identity, folder: Path, **options: Any) -> GatewaySettings:
    """For a gateway on SQLite whose broker and registry are away, unless `options` say otherwise."""
    defaults: dict[str, Any] = {
        "token_keys_file": identity.keys_file,
        "signing_key_file": identity.signing_key_file,
        "database_url": f"sqlite+aiosqlite:///{folder}/gateway.sqlite",
        "broker_url": f"redis+socket://{folder}/no-broker.sock",
        "registry_address": f"unix:{folder}/no-registry.sock",
        "outbox_interval_s": 0.05,
        "reap_interval_s": 0.05,
        "checkpoint_removal_interval_s": 0.05,
        "watch_interval_s": 0.02,
    }
    return GatewaySettings(**defaults | options)


class GatewayClient:
    """Stubs with a token, and the calls that tests make often."""

    def __init__(self, channel: grpc.aio.Channel, address: str = "") -> None:
        self.channel = channel
        self.address = address
        self.training = training_service_pb2_grpc.TrainingServiceStub(channel)
        self.worker = worker_service_pb2_grpc.WorkerServiceStub(channel)
        self.access = access_service_pb2_grpc.AccessServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)

    async def submit(
        self, spec: training_spec_pb2.TrainingSpec | None = None, *, request_id: str = "", **fields: Any
    ) -> training_job_pb2.TrainingJob:
        """A new job."""
        return await self.training.CreateTrainingJob(create_request(spec, request_id=request_id, **fields))

    async def get(self, name: str) -> training_job_pb2.TrainingJob:
        """The job as it is now."""
        return await self.training.GetTrainingJob(training_service_pb2.GetTrainingJobRequest(name=name))

    async def cancel(self, name: str, request_id: str = "") -> training_job_pb2.TrainingJob:
        """Asks the job to stop."""
        request = training_service_pb2.CancelTrainingJobRequest(name=name, request_id=request_id)
        return await self.training.CancelTrainingJob(request)

    def watch(self, name: str, after: int = 0) -> AsyncIterable[training_job_pb2.TrainingJobEvent]:
        """The job's events."""
        request = training_service_pb2.WatchTrainingJobRequest(name=name, after_sequence=after)
        return self.training.WatchTrainingJob(request)

    async def claim(self, name: str, worker: str = "host/1") -> worker_service_pb2.ClaimTrainingJobResponse:
        """Asks for the job."""
        request = worker_service_pb2.ClaimTrainingJobRequest(name=name, worker=worker)
        return await self.worker.ClaimTrainingJob(request)

    async def report(
        self, name: str, attempt: int, first: int, *updates: worker_service_pb2.TrainingUpdate
    ) -> worker_service_pb2.ReportTrainingJobResponse:
        """Reports updates."""
        request = worker_service_pb2.ReportTrainingJobRequest(
            name=name, attempt=attempt, first_update=first, updates=updates
        )
        return await self.worker.ReportTrainingJob(request)

    async def announce(self, name: str, attempt: int, checkpoint: training_job_pb2.Checkpoint) -> None:
        """Says that a checkpoint is about to be uploaded."""
        request = worker_service_pb2.AnnounceCheckpointRequest(name=name, attempt=attempt, checkpoint=checkpoint)
        await self.worker.AnnounceCheckpoint(request)

    async def finish(self, name: str, attempt: int, **outcome: Any) -> training_job_pb2.TrainingJob:
        """Ends the attempt; `outcome` is `succeeded`, `failed` or `cancelled`."""
        request = worker_service_pb2.FinishTrainingJobRequest(name=name, attempt=attempt, **outcome)
        return await self.worker.FinishTrainingJob(request)


Replica = tuple[Gateway, GatewayClient]
"""One of several gateways on one database, with a client of its own."""


def create_request(
    spec: training_spec_pb2.TrainingSpec | None = None,
    *,
    request_id: str = "",
    validate_only: bool = False,
    **fields: Any,
) -> training_service_pb2.CreateTrainingJobRequest:
    """Asks for a job with this spec, by default one that fits TABLE."""
    job = training_job_pb2.TrainingJob(spec=spec or regression(), **fields)
    return training_service_pb2.CreateTrainingJobRequest(
        training_job=job, request_id=request_id, validate_only=validate_only
    )


def trained(content: bytes | None = None) -> worker_service_pb2.TrainedArtifact:
    """What a worker says of a result that it has uploaded."""
    content = content or onnx_bytes(2.0)
    return worker_service_pb2.TrainedArtifact(
        digest=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        evaluation=training_job_pb2.Evaluation(metrics={"r2": 0.5}, test_rows=15),
        parity=training_job_pb2.ParityReport(rows=256, batch_sizes=[1, 7]),
        library_versions={"torch": "2.13.0"},
    )


async def upload_result(registry: RegistryClient, content: bytes | None = None) -> worker_service_pb2.TrainedArtifact:
    """Uploads a small graph as a worker does."""
    content = content or onnx_bytes(2.0)
    await registry.upload(content)
    return trained(content)


def update_of(**payload: Any) -> worker_service_pb2.TrainingUpdate:
    """One thing that happened: `state`, `progress`, `log_line` or `evaluation`."""
    if "state" in payload:
        payload["state"] = State.Value(f"STATE_{payload['state']}")
    return worker_service_pb2.TrainingUpdate(**payload)


async def expire_leases(gateway: Gateway) -> None:
    """Makes every lease one that ran out long ago, and ends the grace after the start."""
    async with gateway.ledger.database.write() as connection:
        jobs = tables.jobs
        await connection.execute(update(jobs).where(jobs.c.lease_until.is_not(None)).values(lease_until=1))
    gateway.leases.end_grace()


@asynccontextmanager
async def served_gateway(settings: GatewaySettings, identity: Identity) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway and where it listens."""
    async with open_gateway(settings) as gateway, serve(gateway.service(), identity) as address:
        yield gateway, address


@asynccontextmanager
async def gateway_client(address: str, token: str) -> AsyncIterator[GatewayClient]:
    """A client with this token."""
    async with aio_channel(address, fixed_token(token)) as channel:
        yield GatewayClient(channel, address)
