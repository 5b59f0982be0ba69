"""Deleting blobs: never one that is used, never half, and never what was uploaded afterwards."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import obstore
import pytest

from modelyard.core.errors import RemoteError
from modelyard.registry.blob_store import open_store
from modelyard.registry.settings import RegistrySettings
from modelyard.v1 import artifact_service_pb2 as pb
from modelyard.v1 import dataset_pb2, model_pb2
from modelyard.v1 import dataset_service_pb2 as dataset_pb
from support import external_graphs
from support.identity import Identity
from support.onnx_graphs import onnx_bytes
from support.postgres_server import PostgresServer
from support.registry import RegistryClient, digest_of, refusal, registry_settings, running_registry
from support.s3_server import S3Server

CONTENT = os.urandom(300_000)
TABLE = b"a,b\n1,2\n3,4\n"
BUCKET = "deletions"


@pytest.fixture(params=["sqlite-folder", "sqlite-s3", "postgres-folder", "postgres-s3"])
def settings(request: pytest.FixtureRequest, identity: Identity, tmp_path: Path) -> RegistrySettings:
    """A registry on either database and either kind of store."""
    database, store = request.param.split("-")
    options = {}
    if database == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        options["database_url"] = server.new_database()
    settings = registry_settings(identity, tmp_path, **options)
    if store == "folder":
        return settings
    s3: S3Server = request.getfixturevalue("s3")
    s3.new_bucket(BUCKET)
    (tmp_path / "scratch").mkdir()
    return RegistrySettings.model_validate(
        settings.model_dump()
        | {
            "blob_url": f"s3://{BUCKET}/{tmp_path.name}", "blob_endpoint": s3.endpoint, "blob_region": "us-east-1",
            "blob_access_key_id": "key", "blob_secret_access_key": "secret", "scratch_dir": tmp_path / "scratch",
        }
    )  # fmt: skip


async def delete(registry: RegistryClient, digest: str) -> bool:
    return (await registry.artifacts.DeleteBlob(pb.DeleteBlobRequest(digest=digest))).existed


async def objects(settings: RegistrySettings) -> list[str]:
    return [entry["path"] async for batch in obstore.list(open_store(settings)) for entry in batch]


async def test_a_blob_that_nothing_refers_to_goes_with_its_content(
    registry: RegistryClient, settings: RegistrySettings
) -> None:
    digest = await registry.upload(CONTENT)
    assert await delete(registry, digest)
    assert await objects(settings) == []
    assert (await refusal(registry.artifacts.GetBlob(pb.GetBlobRequest(digest=digest)))).reason == "NOT_FOUND"
    assert not await delete(registry, digest)


async def test_deleted_content_can_be_uploaded_and_used_again(registry: RegistryClient) -> None:
    digest = await registry.upload(TABLE)
    await delete(registry, digest)
    dataset = await registry.create_dataset(TABLE)
    assert (dataset.digest, dataset.row_count) == (digest, 2)
    assert await registry.download(digest) == TABLE


async def test_with_an_etag_only_that_blob_goes(registry: RegistryClient) -> None:
    digest = await registry.upload(CONTENT)
    first = await registry.artifacts.GetBlob(pb.GetBlobRequest(digest=digest))
    assert (await registry.artifacts.GetBlob(pb.GetBlobRequest(digest=digest))).etag == first.etag
    assert (await registry.artifacts.DeleteBlob(pb.DeleteBlobRequest(digest=digest, etag=first.etag))).existed
    assert not (await registry.artifacts.DeleteBlob(pb.DeleteBlobRequest(digest=digest, etag=first.etag))).existed
    await registry.upload(CONTENT)
    error = await refusal(registry.artifacts.DeleteBlob(pb.DeleteBlobRequest(digest=digest, etag=first.etag)))
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "CONFLICT")
    assert await registry.download(digest) == CONTENT


async def test_what_a_dataset_or_a_version_refers_to_stays(registry: RegistryClient) -> None:
    dataset = await registry.create_dataset(TABLE)
    version = await registry.create_version()
    for digest, content in ((dataset.digest, TABLE), (version.digest, onnx_bytes(2.0))):
        error = await refusal(registry.artifacts.DeleteBlob(pb.DeleteBlobRequest(digest=digest)))
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE")
        assert await registry.download(digest) == content


async def test_a_file_of_weights_beside_a_graph_stays(registry: RegistryClient) -> None:
    graph, weights = external_graphs.external()
    external = model_pb2.ExternalData(digest=await registry.upload(weights), location=external_graphs.LOCATION)
    await registry.create_version(digest=await registry.upload(graph), external_data=external)
    error = await refusal(registry.artifacts.DeleteBlob(pb.DeleteBlobRequest(digest=external.digest)))
    assert error.reason == "WRONG_STATE"


async def test_only_who_may_delete_deletes(sqlite_settings: RegistrySettings, identity: Identity) -> None:
    async with running_registry(sqlite_settings, identity, "worker") as worker:
        digest = await worker.upload(CONTENT)
        error = await refusal(worker.artifacts.DeleteBlob(pb.DeleteBlobRequest(digest=digest)))
        assert error.code is grpc.StatusCode.PERMISSION_DENIED
        assert await worker.download(digest) == CONTENT
    async with running_registry(sqlite_settings, identity, "service") as service:
        assert await delete(service, digest)


async def test_what_is_no_digest_is_refused(sqlite_registry: RegistryClient) -> None:
    error = await refusal(sqlite_registry.artifacts.DeleteBlob(pb.DeleteBlobRequest(digest="../x")))
    assert error.violations[0].field == "digest"


async def test_an_unfinished_upload_of_the_same_content_is_left_alone(registry: RegistryClient) -> None:
    upload = await registry.start(CONTENT)
    upload = await registry.write(upload, CONTENT, end=100_000)
    assert not await delete(registry, upload.digest)
    assert (await registry.write(upload, CONTENT)).complete
    assert await registry.download(upload.digest) == CONTENT


async def test_an_object_that_could_not_be_removed_is_swept(
    registry: RegistryClient, settings: RegistrySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await registry.upload(CONTENT)
    inner = registry.registry
    key = await inner.blobs._ledger.delete_blob(digest)  # and then the process died
    again = await registry.upload(CONTENT)
    assert len(await objects(settings)) == 2
    await inner.sweeper.sweep()
    assert key not in await objects(settings)
    assert await registry.download(again) == CONTENT
    await inner.sweeper.sweep()
    assert len(await objects(settings)) == 1


async def make_dataset(registry: RegistryClient, number: int, digest: str) -> RemoteError | None:
    """A dataset of what is uploaded; the refusal, if that had been deleted meanwhile."""
    dataset = dataset_pb2.Dataset(format=dataset_pb2.Dataset.FORMAT_CSV, digest=digest)
    try:
        await registry.datasets.CreateDataset(
            dataset_pb.CreateDatasetRequest(dataset_id=f"table{number}", dataset=dataset)
        )
    except grpc.aio.AioRpcError as error:
        return RemoteError.from_rpc(error)
    return None


@pytest.fixture
async def replicas(settings: RegistrySettings, identity: Identity) -> AsyncIterator[list[RegistryClient]]:
    async with running_registry(settings, identity) as first, running_registry(settings, identity) as second:
        yield [first, second]


async def test_uploads_uses_and_deletions_of_the_same_content_at_once_leave_all_or_nothing(
    replicas: list[RegistryClient], settings: RegistrySettings
) -> None:
    first, second = replicas
    for number in range(8):
        content = b"a,b\n" + b"1,2\n" * (number + 1)
        digest = digest_of([content])
        await first.upload(content)
        ends = await asyncio.gather(
            make_dataset(second, number, digest), first.start(content), delete(first, digest), delete(second, digest),
            return_exceptions=True,
        )  # fmt: skip
        error = ends[0]
        assert error is None or isinstance(error, RemoteError), error
        if error is None:
            assert await second.download(digest) == content
            continue
        assert error.reason in {"INVALID_FIELD", "NOT_FOUND"}, error
        # Whatever the others did, uploading helps.
        await first.upload(content)
        assert await make_dataset(second, number, digest) is None
        assert await second.download(digest) == content
    for replica in replicas:
        await replica.registry.sweeper.sweep()
    assert len(await objects(settings)) == 8


async def test_many_who_upload_and_delete_the_same_never_leave_a_blob_without_content(
    replicas: list[RegistryClient], settings: RegistrySettings
) -> None:
    content = CONTENT[:100_000]
    digest = digest_of([content])

    async def upload(replica: RegistryClient) -> None:
        for _ in range(10):
            with_luck = await asyncio.gather(replica.upload(content, chunk_bytes=30_000), return_exceptions=True)
            assert isinstance(with_luck[0], str | grpc.aio.AioRpcError), with_luck

    async def remove(replica: RegistryClient) -> None:
        for _ in range(20):
            await delete(replica, digest)

    await asyncio.gather(*(work(replica) for replica in replicas for work in (upload, remove)))
    await replicas[0].upload(content)
    assert await replicas[1].download(digest) == content
    await delete(replicas[0], digest)
    await replicas[0].registry.sweeper.sweep()
    assert await objects(settings) == []
