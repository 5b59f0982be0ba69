"""The registry on a real S3 server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import obstore
import pytest

from modelyard.registry.blob_store import open_store
from modelyard.registry.settings import RegistrySettings
from support.identity import Identity
from support.registry import RegistryClient, digest_of, refusal, registry_settings, running_registry
from support.s3_server import S3Server

MEBIBYTE = 1024 * 1024
CONTENT = os.urandom(21 * MEBIBYTE + 7)  # three pieces of a multipart upload
BUCKET = "modelyard"


@pytest.fixture
def settings(identity: Identity, tmp_path: Path, s3: S3Server) -> RegistrySettings:
    s3.new_bucket(BUCKET)
    return registry_settings(
        identity, tmp_path, blob_url=f"s3://{BUCKET}/{tmp_path.name}", blob_endpoint=s3.endpoint,
        blob_region="us-east-1", blob_access_key_id="key", blob_secret_access_key="secret",
        part_bytes=4 * MEBIBYTE, scratch_dir=tmp_path / "scratch",
    )  # fmt: skip


@pytest.fixture
async def registry(settings: RegistrySettings, identity: Identity) -> AsyncIterator[RegistryClient]:
    assert settings.scratch_dir is not None
    settings.scratch_dir.mkdir()
    async with running_registry(settings, identity) as client:
        yield client


async def keys(settings: RegistrySettings) -> list[str]:
    return [entry["path"] async for batch in obstore.list(open_store(settings)) for entry in batch]


async def test_content_goes_up_in_parts_and_comes_back(registry: RegistryClient, settings: RegistrySettings) -> None:
    upload = await registry.start(CONTENT)
    upload = await registry.write(upload, CONTENT, end=9 * MEBIBYTE)
    assert upload.committed_bytes == 9 * MEBIBYTE
    assert len(await keys(settings)) == 3
    assert (await registry.write(upload, CONTENT)).complete
    assert await keys(settings) == [(await registry.registry.blobs.blob(upload.digest)).key]
    assert await registry.download(upload.digest) == CONTENT
    assert await registry.download(upload.digest, 20 * MEBIBYTE, 9) == CONTENT[20 * MEBIBYTE : 20 * MEBIBYTE + 9]


async def test_wrong_content_leaves_nothing_not_even_a_hidden_upload(
    registry: RegistryClient, settings: RegistrySettings, s3: S3Server
) -> None:
    wrong = b"?" + CONTENT[1:]
    upload = await registry.start(wrong, digest=digest_of([CONTENT]))
    assert (await refusal(registry.write(upload, wrong))).reason == "DIGEST_MISMATCH"
    assert await keys(settings) == []
    assert s3.uploads_in_progress(BUCKET) == 0


async def test_tables_and_graphs_are_read_from_a_copy_that_goes_away(
    registry: RegistryClient, settings: RegistrySettings
) -> None:
    dataset = await registry.create_dataset(b"a,b\n1,2\n3,4\n")
    version = await registry.create_version(alias="live")
    assert (dataset.row_count, version.version) == (2, 1)
    assert settings.scratch_dir is not None
    assert list(settings.scratch_dir.iterdir()) == []


async def test_a_store_that_is_away_is_told_as_such(settings: RegistrySettings, identity: Identity) -> None:
    away = settings.model_copy(update={"blob_url": "s3://no-such-bucket/x"})
    async with running_registry(away, identity) as registry:
        error = await refusal(registry.upload(b"content"))
    assert (error.code.name, error.reason) == ("UNAVAILABLE", "UNAVAILABLE")
    assert error.retry_after
