"""Blob transfer against an artifact store that breaks, through real gRPC."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from modelyard.client import blobs
from modelyard.core import channels, errors
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from support.artifact_store import CHUNK_BYTES, ArtifactStore
from support.background import serve_in_background
from support.identity import Identity

CONTENT = random.Random(7).randbytes(3 * blobs.CHUNK_BYTES + 12_345)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def store() -> ArtifactStore:
    return ArtifactStore()


@pytest.fixture
def stub(store: ArtifactStore, identity: Identity, tmp_path: Path) -> Iterator[ArtifactServiceStub]:
    token = channels.fixed_token(identity.token("worker"))
    with (
        serve_in_background(store.service(), identity, f"unix:{tmp_path}/store.sock") as server,
        channels.sync_channel(server.address, token) as channel,
    ):
        yield ArtifactServiceStub(channel)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def test_an_uploaded_file_is_a_blob_under_its_digest(
    stub: ArtifactServiceStub, store: ArtifactStore, source: Path
) -> None:
    told: list[tuple[int, int]] = []
    assert blobs.upload_file(stub, source, lambda done, total: told.append((done, total))) == DIGEST
    assert store.blobs[DIGEST] == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_what_the_store_has_already_is_not_sent(stub: ArtifactServiceStub, store: ArtifactStore, source: Path) -> None:
    store.put(CONTENT)
    assert blobs.upload_file(stub, source) == DIGEST
    assert store.received_bytes == 0


@pytest.mark.parametrize("content", [b"", b"x"])
def test_tiny_files_travel_both_ways(
    stub: ArtifactServiceStub, store: ArtifactStore, tmp_path: Path, content: bytes
) -> None:
    tiny, copy = tmp_path / "tiny", tmp_path / "copy"
    tiny.write_bytes(content)
    digest = blobs.upload_file(stub, tiny)
    assert blobs.download_blob(stub, digest, copy) == len(content)
    assert copy.read_bytes() == content


def test_a_broken_upload_goes_on_where_it_broke(stub: ArtifactServiceStub, store: ArtifactStore, source: Path) -> None:
    store.faults.broken_uploads = 2
    assert blobs.upload_file(stub, source) == DIGEST
    assert store.blobs[DIGEST] == CONTENT
    assert store.received_bytes == len(CONTENT)


def test_two_who_upload_the_same_content_both_succeed(
    stub: ArtifactServiceStub, store: ArtifactStore, source: Path
) -> None:
    first = CONTENT[:1000]
    original = store._upload

    def rivalled(digest: str):  # type: ignore[no-untyped-def]
        answer = original(digest)
        if digest in store._partial and not store._partial[digest]:
            store._partial[digest] += first
        return answer

    store._upload = rivalled  # type: ignore[method-assign]
    assert blobs.upload_file(stub, source) == DIGEST
    assert store.blobs[DIGEST] == CONTENT


def test_a_file_that_changed_after_its_fingerprint_is_refused(stub: ArtifactServiceStub, source: Path) -> None:
    content = blobs.fingerprint(source)
    source.write_bytes(bytes(len(CONTENT)))
    with pytest.raises(errors.RemoteError) as raised:
        blobs.upload_file(stub, source, content=content)
    assert raised.value.reason == "DIGEST_MISMATCH"


def test_an_upload_is_cancelled_by_raising_from_progress(
    stub: ArtifactServiceStub, store: ArtifactStore, source: Path
) -> None:
    def give_up(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blobs.upload_file(stub, source, give_up)
    assert DIGEST not in store.blobs


def test_a_broken_download_goes_on_where_it_broke(
    stub: ArtifactServiceStub, store: ArtifactStore, tmp_path: Path
) -> None:
    store.put(CONTENT)
    store.faults.broken_downloads = 2
    copy = tmp_path / "copy"
    assert blobs.download_blob(stub, DIGEST, copy) == len(CONTENT)
    assert copy.read_bytes() == CONTENT
    assert store.read_offsets == [0, CHUNK_BYTES, 2 * CHUNK_BYTES]


def test_a_stream_that_ends_early_is_a_break_not_a_success(
    stub: ArtifactServiceStub, store: ArtifactStore, tmp_path: Path
) -> None:
    store.put(CONTENT)
    store.faults.short_downloads = 1
    assert blobs.download_blob(stub, DIGEST, tmp_path / "copy") == len(CONTENT)


def test_a_corrupted_download_is_refused_and_leaves_nothing(
    stub: ArtifactServiceStub, store: ArtifactStore, tmp_path: Path
) -> None:
    store.put(CONTENT)
    store.faults.corrupt = True
    folder = tmp_path / "downloads"
    folder.mkdir()
    with pytest.raises(errors.DigestMismatch, match=DIGEST):
        blobs.download_blob(stub, DIGEST, folder / "copy")
    assert list(folder.iterdir()) == []


def test_an_unknown_blob_and_a_path_instead_of_a_digest_are_told_apart(
    stub: ArtifactServiceStub, tmp_path: Path
) -> None:
    with pytest.raises(errors.RemoteError) as raised:
        blobs.download_blob(stub, "0" * 64, tmp_path / "copy")
    assert raised.value.code is grpc.StatusCode.NOT_FOUND
    with pytest.raises(errors.InvalidFields):
        blobs.download_blob(stub, "../../etc/passwd", tmp_path / "copy")


def test_patience_ends_with_the_stores_own_error(
    stub: ArtifactServiceStub, store: ArtifactStore, source: Path, tmp_path: Path
) -> None:
    store.faults.away = True
    with pytest.raises(errors.RemoteError, match="away") as raised:
        blobs.upload_file(stub, source, patience_s=0.2)
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(errors.RemoteError, match="away"):
        blobs.download_blob(stub, DIGEST, tmp_path / "copy", patience_s=0.2)
