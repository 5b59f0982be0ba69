"""Artifacts on disk: verified, resumed, bounded. Downloads come over real gRPC from a store with faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from modelyard.core.channels import aio_channel, fixed_token
from modelyard.core.errors import DigestMismatch, RemoteError, ResourceExhausted, WrongState
from modelyard.inference.loading.artifacts import ArtifactCache
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from support.artifact_store import CHUNK_BYTES, ArtifactStore
from support.grpc_server import serve
from support.identity import Identity
from support.served_registry import digest_of

LIMIT = 1_000_000


@pytest.fixture
def store() -> ArtifactStore:
    return ArtifactStore()


@pytest.fixture
async def cache(store: ArtifactStore, identity: Identity, tmp_path: Path) -> AsyncIterator[ArtifactCache]:
    token = fixed_token(identity.token("service"))
    async with serve(store.service(), identity) as address, aio_channel(address, token) as channel:
        cache = ArtifactCache(tmp_path / "cache", ArtifactServiceStub(channel), limit_bytes=LIMIT)
        yield cache
        cache.close()


def content(size: int, seed: int = 0) -> bytes:
    return bytes((seed + index) % 251 for index in range(size))


async def fetch_and_release(cache: ArtifactCache, data: bytes) -> Path:
    digest = digest_of(data)
    path = await cache.fetch(digest, len(data))
    cache.release(digest)
    return path


async def test_an_artifact_is_downloaded_once_and_lies_alone(store: ArtifactStore, cache: ArtifactCache) -> None:
    data = content(3 * CHUNK_BYTES + 17)
    store.put(data)
    paths = {await fetch_and_release(cache, data) for _ in range(2)}
    (path,) = paths
    assert path.read_bytes() == data
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    assert store.read_offsets == [0]
    assert path.parent.stat().st_mode & 0o077 == 0


async def test_broken_and_short_streams_are_resumed(store: ArtifactStore, cache: ArtifactCache) -> None:
    data = content(5 * CHUNK_BYTES)
    store.put(data)
    store.faults.broken_downloads, store.faults.short_downloads = 2, 1
    assert (await fetch_and_release(cache, data)).read_bytes() == data
    assert store.read_offsets == [0, CHUNK_BYTES, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES]


async def test_a_download_goes_on_where_an_earlier_process_stopped(
    store: ArtifactStore, cache: ArtifactCache, tmp_path: Path
) -> None:
    data = content(3 * CHUNK_BYTES)
    partial = tmp_path / "cache" / "partial" / store.put(data)
    partial.write_bytes(data[:100_000])
    assert (await fetch_and_release(cache, data)).read_bytes() == data
    assert store.read_offsets == [100_000]
    assert not partial.exists()


@pytest.mark.parametrize("left_over", [b"rubbish" * 1000, b"x" * 900_000])
async def test_what_an_earlier_process_left_is_not_trusted(
    left_over: bytes, store: ArtifactStore, cache: ArtifactCache, tmp_path: Path
) -> None:
    data = content(3 * CHUNK_BYTES)
    (tmp_path / "cache" / "partial" / store.put(data)).write_bytes(left_over)
    with pytest.raises(DigestMismatch):
        await cache.fetch(digest_of(data), len(data))
    assert (await fetch_and_release(cache, data)).read_bytes() == data


async def test_wrong_content_is_refused_and_nothing_of_it_stays(
    store: ArtifactStore, cache: ArtifactCache, tmp_path: Path
) -> None:
    data = content(2 * CHUNK_BYTES)
    digest = store.put(data)
    store.faults.corrupt = True
    with pytest.raises(DigestMismatch, match="has the SHA-256"):
        await cache.fetch(digest, len(data))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != "lock"]
    store.faults.corrupt = False
    assert (await fetch_and_release(cache, data)).read_bytes() == data


async def test_an_artifact_that_changed_on_disk_is_downloaded_again(store: ArtifactStore, cache: ArtifactCache) -> None:
    data = content(CHUNK_BYTES)
    store.put(data)
    path = await fetch_and_release(cache, data)
    spoiled = bytearray(data)
    spoiled[1234] ^= 1
    path.write_bytes(spoiled)
    assert (await fetch_and_release(cache, data)).read_bytes() == data
    assert store.read_offsets == [0, 0]


async def test_a_blob_that_the_store_does_not_have_is_not_tried_again(cache: ArtifactCache) -> None:
    with pytest.raises(RemoteError) as raised:
        await cache.fetch("ab" * 32, 10)
    assert raised.value.code is grpc.StatusCode.NOT_FOUND


async def test_the_least_recently_used_makes_room_and_what_is_held_stays(
    store: ArtifactStore, cache: ArtifactCache
) -> None:
    data = [content(400_000, seed) for seed in range(4)]
    for one in data:
        store.put(one)
    held = await cache.fetch(digest_of(data[0]), len(data[0]))
    second = await fetch_and_release(cache, data[1])
    third = await fetch_and_release(cache, data[2])
    assert (held.exists(), second.exists(), third.exists()) == (True, False, True)
    fourth = await fetch_and_release(cache, data[3])
    assert (held.exists(), third.exists(), fourth.exists()) == (True, False, True)


async def test_what_cannot_fit_is_refused_before_it_is_downloaded(store: ArtifactStore, cache: ArtifactCache) -> None:
    small, large = content(600_000), content(500_000, seed=1)
    store.put(small)
    store.put(large)
    held = await cache.fetch(digest_of(small), len(small))
    with pytest.raises(ResourceExhausted, match="too small by 100000 bytes"):
        await cache.fetch(digest_of(large), len(large))
    assert held.exists()
    assert store.read_offsets == [0]
    cache.release(digest_of(small))
    assert (await fetch_and_release(cache, large)).read_bytes() == large


async def test_many_at_once_stay_below_the_limit(store: ArtifactStore, cache: ArtifactCache, tmp_path: Path) -> None:
    data = [content(180_000, seed) for seed in range(16)]
    for one in data:
        store.put(one)
    sizes = []

    async def fetch(one: bytes) -> None:
        while True:
            try:
                path = await fetch_and_release(cache, one)
            except ResourceExhausted:  # the others have all the room at the moment
                await asyncio.sleep(0)
                continue
            assert path.name == "model.onnx"
            sizes.append(cache.size_bytes())
            return

    await asyncio.gather(*map(fetch, data))
    assert len(sizes) == 16
    assert max(sizes) <= LIMIT


async def test_two_versions_with_the_same_content_share_one_download(
    store: ArtifactStore, cache: ArtifactCache
) -> None:
    data = content(3 * CHUNK_BYTES)
    digest = store.put(data)
    paths = await asyncio.gather(*(cache.fetch(digest, len(data)) for _ in range(3)))
    assert len(set(paths)) == 1
    assert store.read_offsets == [0]


async def test_an_empty_artifact_is_fetched_too(store: ArtifactStore, cache: ArtifactCache) -> None:
    store.put(b"")
    assert (await fetch_and_release(cache, b"")).read_bytes() == b""


async def test_a_second_process_is_refused(cache: ArtifactCache, tmp_path: Path) -> None:
    channel = aio_channel("localhost:1")
    with pytest.raises(WrongState, match="another process uses the cache folder"):
        ArtifactCache(tmp_path / "cache", ArtifactServiceStub(channel), limit_bytes=LIMIT)
    cache.close()
    ArtifactCache(tmp_path / "cache", ArtifactServiceStub(channel), limit_bytes=LIMIT).close()
    await channel.close()
