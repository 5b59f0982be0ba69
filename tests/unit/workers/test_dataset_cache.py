"""Datasets on disk: fetched once, verified always, bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.core import channels, errors
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard_workers.dataset_cache import DatasetCache
from support.artifact_store import ArtifactStore
from support.background import serve_in_background
from support.identity import Identity


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
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "datasets"
    folder.mkdir()
    return folder


def test_a_dataset_is_fetched_once_and_handed_out_read_only(
    stub: ArtifactServiceStub, store: ArtifactStore, folder: Path, tmp_path: Path
) -> None:
    digest, cache = store.put(b"rows"), DatasetCache(folder, 1_000)
    for target in (tmp_path / "first", tmp_path / "second"):
        cache.fetch(stub, digest, target)
        assert target.read_bytes() == b"rows"
        assert target.stat().st_mode & 0o777 == 0o400
    assert len(store.read_offsets) == 1


def test_a_file_that_changed_on_disk_is_fetched_again(
    stub: ArtifactServiceStub, store: ArtifactStore, folder: Path, tmp_path: Path
) -> None:
    digest, cache = store.put(b"rows"), DatasetCache(folder, 1_000)
    cache.fetch(stub, digest, tmp_path / "first")
    (folder / digest).chmod(0o600)
    (folder / digest).write_bytes(b"lies")
    cache.fetch(stub, digest, tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == b"rows"
    assert len(store.read_offsets) == 2


def test_the_file_used_longest_ago_goes_first_and_users_keep_theirs(
    stub: ArtifactServiceStub, store: ArtifactStore, folder: Path, tmp_path: Path
) -> None:
    cache = DatasetCache(folder, 250)
    digests = [store.put(letter * 100) for letter in (b"a", b"b", b"c")]
    for age, digest in zip((300, 200), digests[:2], strict=True):
        cache.fetch(stub, digest, tmp_path / digest)
        moment = (folder / digest).stat().st_mtime - age
        os.utime(folder / digest, (moment, moment))
    cache.fetch(stub, digests[0], tmp_path / "again")
    cache.fetch(stub, digests[2], tmp_path / digests[2])
    assert {path.name for path in folder.iterdir()} == {digests[0], digests[2]}
    assert (tmp_path / digests[1]).read_bytes() == b"b" * 100


def test_a_cache_of_nothing_still_delivers(
    stub: ArtifactServiceStub, store: ArtifactStore, folder: Path, tmp_path: Path
) -> None:
    DatasetCache(folder, 0).fetch(stub, store.put(b"rows"), tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"rows"
    assert list(folder.iterdir()) == []


def test_a_path_is_no_digest(stub: ArtifactServiceStub, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidFields):
        DatasetCache(folder, 1_000).fetch(stub, "../secret", tmp_path / "target")
