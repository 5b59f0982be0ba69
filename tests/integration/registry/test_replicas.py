"""Two replicas on one PostgreSQL and one blob folder, at the same time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelyard.registry.settings import RegistrySettings
from modelyard.v1 import dataset_pb2
from modelyard.v1 import dataset_service_pb2 as pb
from support.identity import Identity
from support.postgres_server import PostgresServer
from support.registry import RegistryClient, registry_settings, running_registry

CONTENT = os.urandom(3_000_000)


@pytest.fixture
def shared(identity: Identity, tmp_path: Path, postgres: PostgresServer) -> RegistrySettings:
    return registry_settings(identity, tmp_path, database_url=postgres.new_database(), part_bytes=100_000)


@pytest.fixture
async def replicas(shared: RegistrySettings, identity: Identity) -> AsyncIterator[list[RegistryClient]]:
    async with running_registry(shared, identity) as first, running_registry(shared, identity) as second:
        yield [first, second]


def stored(settings: RegistrySettings) -> list[str]:
    folder = Path(settings.blob_url.removeprefix("file://"))
    return [path.name.partition("-")[0] for path in folder.rglob("*") if path.is_file()]


async def test_the_same_content_sent_to_both_at_once_becomes_one_blob(
    replicas: list[RegistryClient], shared: RegistrySettings
) -> None:
    uploads = await asyncio.gather(*(replica.start(CONTENT) for replica in replicas * 4))
    assert len({upload.name for upload in uploads}) == 1
    ends = await asyncio.gather(
        *(
            replica.write(uploads[0], CONTENT, chunk_bytes=30_000 + number)
            for number, replica in enumerate(replicas * 3)
        )
    )
    assert all(upload.complete for upload in ends)
    assert await replicas[0].download(uploads[0].digest) == CONTENT
    assert stored(shared) == [uploads[0].digest]


async def test_one_dataset_id_gets_one_content(replicas: list[RegistryClient]) -> None:
    contents = [b"a,b\n1,2\n", b"a,b\n1,2\n3,4\n"]
    ends = await asyncio.gather(
        *(replica.create_dataset(content) for content in contents for replica in replicas), return_exceptions=True
    )
    made = [end for end in ends if isinstance(end, dataset_pb2.Dataset)]
    assert len(made) == 2
    assert made[0] == made[1]
    listed = [await replica.datasets.ListDatasets(pb.ListDatasetsRequest()) for replica in replicas]
    assert [list(answer.datasets) for answer in listed] == [made[:1]] * 2
