"""Blobs over gRPC, with the stubs and with the client that workers and people use."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from modelyard.client.blobs import Fingerprint, download_blob, upload_file
from modelyard.core.channels import fixed_token, sync_channel
from modelyard.core.errors import RemoteError
from modelyard.registry.application import open_registry
from modelyard.registry.settings import RegistrySettings
from modelyard.v1 import artifact_service_pb2 as pb
from modelyard.v1 import artifact_service_pb2_grpc
from support.grpc_server import serve
from support.identity import Identity
from support.registry import RegistryClient, chunks, digest_of, refusal, registry_settings, running_registry
from support.waiting import eventually

Code = grpc.StatusCode
MEBIBYTE = 1024 * 1024
CONTENT = os.urandom(5 * MEBIBYTE + 12_345)


@pytest.fixture
def small_parts(identity: Identity, tmp_path: Path) -> RegistrySettings:
    return registry_settings(identity, tmp_path, part_bytes=MEBIBYTE, max_blob_bytes=16 * MEBIBYTE)


@pytest.fixture
async def registry(small_parts: RegistrySettings, identity: Identity) -> AsyncIterator[RegistryClient]:
    async with running_registry(small_parts, identity, "worker") as client:
        yield client


def stored(settings: RegistrySettings) -> list[Path]:
    folder = Path(settings.blob_url.removeprefix("file://"))
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_content_comes_back_as_it_went(registry: RegistryClient, small_parts: RegistrySettings) -> None:
    digest = await registry.upload(CONTENT)
    blob = await registry.artifacts.GetBlob(pb.GetBlobRequest(digest=digest))
    assert (blob.digest, blob.size_bytes) == (digest, len(CONTENT))
    assert blob.HasField("create_time")
    assert await registry.download(digest) == CONTENT
    assert await registry.download(digest, 4_000_000) == CONTENT[4_000_000:]
    assert await registry.download(digest, 4_000_000, 3) == CONTENT[4_000_000:4_000_003]
    assert [path.name.partition("-")[0] for path in stored(small_parts)] == [digest]


async def test_chunks_on_the_way_down_are_small_and_in_order(registry: RegistryClient) -> None:
    digest = await registry.upload(CONTENT)
    offset = 0
    async for response in registry.artifacts.ReadBlob(pb.ReadBlobRequest(digest=digest)):
        assert response.offset == offset
        assert 0 < len(response.data) <= MEBIBYTE
        offset += len(response.data)
    assert offset == len(CONTENT)


async def test_a_broken_upload_goes_on_where_it_was_at_another_replica(
    registry: RegistryClient, small_parts: RegistrySettings, identity: Identity
) -> None:
    upload = await registry.start(CONTENT)

    async def broken() -> AsyncIterator[pb.WriteUploadRequest]:
        async for message in chunks(upload.name, CONTENT[: 3 * MEBIBYTE + 7]):
            yield message
        await asyncio.Event().wait()

    async def has_arrived() -> bool:
        return (await registry.start(CONTENT)).committed_bytes >= 2 * MEBIBYTE

    call = registry.artifacts.WriteUpload(broken())
    await eventually(has_arrived)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with running_registry(small_parts, identity, "worker") as replica:
        upload = await replica.start(CONTENT)
        assert 2 * MEBIBYTE <= upload.committed_bytes < len(CONTENT)
        assert (await replica.write(upload, CONTENT)).complete
        assert await replica.download(upload.digest) == CONTENT


async def test_a_stream_that_ends_early_keeps_every_byte(registry: RegistryClient) -> None:
    upload = await registry.start(CONTENT)
    upload = await registry.write(upload, CONTENT, end=1_234_567)
    assert (upload.committed_bytes, upload.complete) == (1_234_567, False)
    assert upload.HasField("expire_time")
    assert await registry.artifacts.GetUpload(pb.GetUploadRequest(name=upload.name)) == upload
    upload = await registry.write(upload, CONTENT)
    assert upload.complete
    assert await registry.artifacts.GetUpload(pb.GetUploadRequest(name=upload.name)) == upload


async def test_wrong_content_is_data_loss_and_nothing_is_left(
    registry: RegistryClient, small_parts: RegistrySettings
) -> None:
    digest = digest_of([CONTENT])
    upload = await registry.start(CONTENT[:-1] + b"?", digest=digest)
    error = await refusal(registry.write(upload, CONTENT[:-1] + b"?"))
    assert (error.code, error.reason) == (Code.DATA_LOSS, "DIGEST_MISMATCH")
    assert error.metadata["expected"] == digest
    assert stored(small_parts) == []
    assert (await refusal(registry.artifacts.GetUpload(pb.GetUploadRequest(name=upload.name)))).code is Code.NOT_FOUND
    assert (await refusal(registry.artifacts.GetBlob(pb.GetBlobRequest(digest=digest)))).code is Code.NOT_FOUND
    assert (await refusal(registry.download(digest))).code is Code.NOT_FOUND


async def test_a_gap_a_large_chunk_and_a_large_blob_are_refused(registry: RegistryClient) -> None:
    upload = await registry.write(await registry.start(CONTENT), CONTENT, end=100)
    error = await refusal(registry.artifacts.WriteUpload(chunks(upload.name, CONTENT, 101)))
    assert (error.code, error.metadata["committed_bytes"]) == (Code.OUT_OF_RANGE, "100")
    error = await refusal(registry.write(upload, CONTENT, chunk_bytes=3 * MEBIBYTE))
    assert (error.reason, error.metadata["limit_bytes"]) == ("TOO_LARGE", str(2 * MEBIBYTE))
    error = await refusal(
        registry.artifacts.StartUpload(pb.StartUploadRequest(digest="0" * 64, size_bytes=16 * MEBIBYTE + 1))
    )
    assert (error.reason, error.metadata["limit_bytes"]) == ("TOO_LARGE", str(16 * MEBIBYTE))


async def test_many_who_upload_the_same_at_once_all_succeed(registry: RegistryClient) -> None:
    digests = await asyncio.gather(*(registry.upload(CONTENT, chunk_bytes=200_000 + n) for n in range(6)))
    assert set(digests) == {digest_of([CONTENT])}
    assert await registry.download(digests[0]) == CONTENT


class TestWithTheClient:
    """The blocking client of `modelyard.client.blobs`, in threads."""

    @pytest.fixture
    async def address(self, small_parts: RegistrySettings, identity: Identity) -> AsyncIterator[str]:
        async with open_registry(small_parts) as registry, serve(registry.service(), identity) as address:
            yield address

    @pytest.fixture
    def stub(self, address: str, identity: Identity) -> Iterator[artifact_service_pb2_grpc.ArtifactServiceStub]:
        with sync_channel(address, fixed_token(identity.token("worker"))) as channel:
            yield artifact_service_pb2_grpc.ArtifactServiceStub(channel)

    @pytest.mark.parametrize("size", [0, 1, MEBIBYTE, len(CONTENT)])
    async def test_files_go_up_and_come_down(
        self, stub: artifact_service_pb2_grpc.ArtifactServiceStub, tmp_path: Path, size: int
    ) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(CONTENT[:size])
        digest = await asyncio.to_thread(upload_file, stub, source)
        assert await asyncio.to_thread(upload_file, stub, source) == digest
        assert await asyncio.to_thread(download_blob, stub, digest, target) == size
        assert target.read_bytes() == CONTENT[:size]

    async def test_clients_that_upload_the_same_file_at_once_all_succeed(
        self, stub: artifact_service_pb2_grpc.ArtifactServiceStub, tmp_path: Path
    ) -> None:
        source = tmp_path / "source"
        source.write_bytes(CONTENT)
        digests = await asyncio.gather(*(asyncio.to_thread(upload_file, stub, source) for _ in range(4)))
        assert set(digests) == {digest_of([CONTENT])}

    async def test_a_file_that_is_not_what_was_announced_is_refused(
        self, stub: artifact_service_pb2_grpc.ArtifactServiceStub, tmp_path: Path
    ) -> None:
        source = tmp_path / "source"
        source.write_bytes(CONTENT)
        wrong = Fingerprint("0" * 64, len(CONTENT))
        with pytest.raises(RemoteError) as raised:
            await asyncio.to_thread(upload_file, stub, source, content=wrong)
        assert raised.value.reason == "DIGEST_MISMATCH"
