"""Checkpoints of the same content in two jobs: what one worker has found in the store stays while the other's goes."""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import func, select

from modelyard.core.channels import fixed_token, sync_channel
from modelyard.gateway.application import Gateway
from modelyard.gateway.tables import job_checkpoints
from modelyard.v1 import training_job_pb2, worker_service_pb2
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.v1.training_job_pb2 import Checkpoint
from modelyard_workers.checkpoint_shelf import CheckpointShelf
from modelyard_workers.checkpoints import FOLDER, Checkpoints
from modelyard_workers.gateway import Gateway as WorkerGateway
from support.gateway import GatewayClient, Replica, update_of, upload_result
from support.identity import Identity
from support.registry import RegistryClient
from support.waiting import eventually

STATE = b"the state after step 100, of a trainer that writes no job's name into it"


@dataclass
class Saving:
    """A worker that brings one checkpoint to the store, and has not reported it yet."""

    folder: Path
    gateway_address: str
    registry_address: str
    token: str
    told: list[Checkpoint] = field(default_factory=list)

    async def bring(self, name: str, step: int = 100) -> Checkpoint:
        """Does with STATE what the worker does; answers what is to be reported."""
        await asyncio.to_thread(self._bring, name, step)
        return self.told.pop()

    def _bring(self, name: str, step: int) -> None:
        work, shelf = self.folder / name, self.folder / "shelf"
        (work / FOLDER).mkdir(parents=True)
        (work / FOLDER / f"{step:012d}.safetensors").write_bytes(STATE)
        shelf.mkdir(exist_ok=True)
        token = fixed_token(self.token)
        with (
            closing(sync_channel(self.gateway_address, token)) as gateway,
            closing(sync_channel(self.registry_address, token)) as registry,
            Checkpoints(
                ArtifactServiceStub(registry), work, CheckpointShelf(shelf), name.rpartition("/")[2],
                partial(announce, WorkerGateway(gateway), name), self.told.append, lambda: True,
            ) as checkpoints,
        ):  # fmt: skip
            checkpoints.saved(Checkpoint(epoch=1, step=step))
            assert checkpoints.finish(30)


def announce(gateway: WorkerGateway, name: str, checkpoint: Checkpoint) -> None:
    """In the first attempt."""
    gateway.announce(worker_service_pb2.AnnounceCheckpointRequest(name=name, attempt=1, checkpoint=checkpoint))


async def _claimed(client: GatewayClient) -> training_job_pb2.TrainingJob:
    return (await client.claim((await client.submit()).name)).training_job


async def _all_seen_to(gateway: Gateway, name: str) -> bool:
    """Whether the removal is done with every checkpoint of the job."""
    rows = select(func.count()).select_from(job_checkpoints).where(job_checkpoints.c.job_id == name.rpartition("/")[2])
    async with gateway.ledger.database.read() as connection:
        return (await connection.execute(rows)).scalar_one() == 0


@pytest.fixture
def saving(replicas: list[Replica], registry_address: str, identity: Identity, tmp_path: Path) -> Saving:
    """At the second gateway."""
    return Saving(tmp_path / "worker", replicas[1][1].address, registry_address, identity.token("worker"))


async def test_what_a_worker_has_found_in_the_store_is_there_when_it_is_reported(
    replicas: list[Replica], registry: RegistryClient, saving: Saving
) -> None:
    (gateway, one), (_, two) = replicas
    other, job = await _claimed(one), await _claimed(two)
    await one.report(other.name, 1, 1, update_of(checkpoint=await saving.bring(other.name)))
    found = await saving.bring(job.name)
    # Between the finding and the report the other job ends, and the removal of its checkpoints.
    await one.finish(other.name, 1, succeeded=await upload_result(registry))
    await eventually(lambda: _all_seen_to(gateway, other.name))
    await two.report(job.name, 1, 1, update_of(checkpoint=found))
    assert (await two.get(job.name)).checkpoint.digest == found.digest
    assert await registry.download(found.digest) == STATE


async def test_what_was_removed_before_a_worker_looked_is_uploaded_again(
    replicas: list[Replica], registry: RegistryClient, saving: Saving
) -> None:
    (gateway, one), (_, two) = replicas
    other, job = await _claimed(one), await _claimed(two)
    await one.report(other.name, 1, 1, update_of(checkpoint=await saving.bring(other.name)))
    await one.finish(other.name, 1, succeeded=await upload_result(registry))
    await eventually(lambda: _all_seen_to(gateway, other.name))
    await two.report(job.name, 1, 1, update_of(checkpoint=await saving.bring(job.name)))
    assert await registry.download((await two.get(job.name)).checkpoint.digest) == STATE
