"""Uploads under every chunking, break, race and lie."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import obstore
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obstore.store import LocalStore

from modelyard.core.database import Database
from modelyard.core.errors import (
    DeadlineExceeded,
    DigestMismatch,
    InvalidFields,
    NotFound,
    OffsetMismatch,
    ResourceExhausted,
    TooLarge,
    Unavailable,
)
from modelyard.registry.blob_store import part_key
from modelyard.registry.upload_stream import MAX_CHUNK_BYTES, Chunk
from support.blob_desk import PART_BYTES, TENANT, BlobDesk, cut, listed, stream
from support.waiting import eventually

CONTENT = bytes(range(256)) * 4
DIGEST = hashlib.sha256(CONTENT).hexdigest()

ANY_STREAM = st.tuples(st.integers(1, 300), st.integers(0, 12), st.booleans())
"""Chunk size, chunks until the connection breaks, and whether another replica takes the stream."""


async def test_content_becomes_a_blob_and_its_parts_are_gone(desk: BlobDesk) -> None:
    upload = await desk.upload(CONTENT)
    assert (upload.complete, upload.committed_bytes) == (True, len(CONTENT))
    assert await desk.read(DIGEST) == CONTENT
    assert await desk.keys() == [(await desk.blobs.blob(DIGEST)).key]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(number=st.integers(0, 2**64), size=st.integers(0, 1000), streams=st.lists(ANY_STREAM, max_size=8))
async def test_any_series_of_broken_streams_leads_to_the_content(
    desk: BlobDesk, number: int, size: int, streams: list[tuple[int, int, bool]]
) -> None:
    content = hashlib.shake_256(str((number, size)).encode()).digest(size)
    replicas = (desk, desk.other())
    for chunk_bytes, chunks, other in streams:
        upload = await desk.start(content)
        if upload.complete:
            break
        sent = cut(stream(upload, content, upload.committed_bytes, chunk_bytes), chunks)
        with pytest.raises(ConnectionError):
            await replicas[other].blobs.write(TENANT, sent)
        after = await desk.blobs.get(TENANT, upload.id)
        arrived = min(size - upload.committed_bytes, chunk_bytes * chunks)
        assert after.committed_bytes >= upload.committed_bytes + arrived - PART_BYTES - chunk_bytes
    await desk.upload(content)
    assert await desk.read(hashlib.sha256(content).hexdigest()) == content
    assert await desk.keys("uploads") == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(number=st.integers(0, 2**64), writers=st.lists(st.integers(1, 200), min_size=2, max_size=5))
async def test_any_number_of_writers_of_the_same_content_all_succeed(
    desk: BlobDesk, number: int, writers: list[int]
) -> None:
    content = hashlib.shake_256(str(number).encode()).digest(1000)
    upload = await desk.start(content)
    replicas = [desk, *(desk.other() for _ in writers[1:])]
    if upload.complete:
        return
    uploads = await asyncio.gather(
        *(
            replica.write(upload, content, offset=0, chunk_bytes=chunk_bytes)
            for replica, chunk_bytes in zip(replicas, writers, strict=True)
        )
    )
    assert all(one.complete for one in uploads)
    assert await desk.read(hashlib.sha256(content).hexdigest()) == content
    assert await desk.keys("uploads") == []


async def test_an_upload_is_announced_once_for_all_who_send_the_same(desk: BlobDesk) -> None:
    first, second = await asyncio.gather(desk.start(CONTENT), desk.other().start(CONTENT))
    assert first == second
    foreign = await desk.start(CONTENT, tenant="blue")
    assert foreign.id != first.id


async def test_content_that_is_there_is_complete_at_once_for_everybody(desk: BlobDesk) -> None:
    waiting = await desk.start(CONTENT, tenant="blue")
    await desk.upload(CONTENT)
    assert (await desk.start(CONTENT)).complete
    assert (await desk.start(CONTENT, tenant="red")).complete
    again = await desk.start(CONTENT, tenant="blue")
    assert (again.id, again.complete, again.committed_bytes) == (waiting.id, True, len(CONTENT))


async def test_other_bytes_than_announced_are_refused_and_nothing_is_left(desk: BlobDesk) -> None:
    upload = await desk.start(CONTENT)
    with pytest.raises(DigestMismatch) as raised:
        await desk.write(upload, b"x" * len(CONTENT))
    assert raised.value.metadata["expected"] == DIGEST
    assert await desk.keys() == []
    with pytest.raises(NotFound):
        await desk.blobs.get(TENANT, upload.id)
    assert (await desk.upload(CONTENT)).complete


async def test_two_who_finish_wrong_content_both_hear_of_it(desk: BlobDesk) -> None:
    upload = await desk.start(CONTENT)
    wrong = b"x" * len(CONTENT)
    ends = await asyncio.gather(
        *(desk.write(upload, wrong, offset=0, chunk_bytes=100) for _ in range(2)), return_exceptions=True
    )
    assert {type(end) for end in ends} <= {DigestMismatch, NotFound}
    assert DigestMismatch in {type(end) for end in ends}


async def test_bytes_that_are_stored_already_are_skipped(desk: BlobDesk) -> None:
    upload = await desk.start(CONTENT)
    upload = await desk.write(upload, CONTENT, end=500)
    assert upload.committed_bytes == 500
    assert (await desk.write(upload, CONTENT, offset=100)).complete
    assert await desk.read(DIGEST) == CONTENT


async def test_a_gap_is_refused_with_the_place_to_go_on(desk: BlobDesk) -> None:
    upload = await desk.write(await desk.start(CONTENT), CONTENT, end=500)
    with pytest.raises(OffsetMismatch) as raised:
        await desk.write(upload, CONTENT, offset=501)
    assert raised.value.metadata == {"committed_bytes": "500"}
    with pytest.raises(OffsetMismatch):
        await desk.write(upload, CONTENT, offset=-1)


async def test_a_gap_within_a_stream_is_refused(desk: BlobDesk) -> None:
    upload = await desk.start(CONTENT)
    with pytest.raises(OffsetMismatch):
        await desk.blobs.write(TENANT, listed([Chunk(upload.id, 0, b"abc"), Chunk("", 4, b"d")]))


async def test_bytes_beyond_the_announced_size_are_refused(desk: BlobDesk) -> None:
    upload = await desk.start(CONTENT)
    with pytest.raises(InvalidFields) as raised:
        await desk.write(upload, CONTENT + b"more")
    assert raised.value.violations[0].field == "data"


async def test_a_chunk_and_a_blob_over_the_limit_are_refused(desk: BlobDesk) -> None:
    with pytest.raises(TooLarge) as raised:
        await desk.blobs.start(TENANT, DIGEST, 1_000_001)
    assert raised.value.metadata == {"limit_bytes": "1000000"}
    upload = await desk.start(CONTENT)
    with pytest.raises(TooLarge) as raised:
        await desk.blobs.write(TENANT, listed([Chunk(upload.id, 0, bytes(MAX_CHUNK_BYTES + 1))]))
    assert raised.value.metadata == {"limit_bytes": str(MAX_CHUNK_BYTES)}


async def test_an_impossible_size_is_refused(desk: BlobDesk) -> None:
    with pytest.raises(InvalidFields):
        await desk.blobs.start(TENANT, DIGEST, -1)
    await desk.upload(CONTENT)
    with pytest.raises(InvalidFields, match="is there with 1024 bytes"):
        await desk.blobs.start(TENANT, DIGEST, 7)


async def test_empty_content_needs_nothing_to_be_sent(desk: BlobDesk) -> None:
    upload = await desk.start(b"")
    assert upload.complete
    assert await desk.read(upload.digest) == b""
    with pytest.raises(DigestMismatch):
        await desk.blobs.start(TENANT, DIGEST, 0)


async def test_a_stream_without_messages_is_refused(desk: BlobDesk) -> None:
    with pytest.raises(InvalidFields) as raised:
        await desk.blobs.write(TENANT, listed([]))
    assert raised.value.violations[0].field == "name"


async def test_an_upload_is_its_tenants_own(desk: BlobDesk) -> None:
    upload = await desk.start(CONTENT)
    with pytest.raises(NotFound):
        await desk.blobs.get("blue", upload.id)
    with pytest.raises(NotFound):
        await desk.write(upload, CONTENT, tenant="blue")


async def test_a_tenant_with_too_many_streams_is_told_to_come_back_and_others_are_not(desk: BlobDesk) -> None:
    async with desk.other(tenant_uploads=1) as small:
        upload = await small.start(CONTENT)
        gate = asyncio.Event()

        async def slow() -> object:
            yield Chunk(upload.id, 0, CONTENT[:10])
            await gate.wait()

        first = asyncio.create_task(small.blobs.write(TENANT, slow()))  # type: ignore[arg-type]
        await eventually(lambda: _is_busy(small))
        with pytest.raises(ResourceExhausted) as raised:
            await small.write(upload, CONTENT)
        assert raised.value.retry_after
        foreign = await small.start(CONTENT, tenant="blue")
        assert (await small.write(foreign, CONTENT, tenant="blue")).complete
        gate.set()
        await first
        assert (await small.write(upload, CONTENT, offset=0)).complete


async def _is_busy(desk: BlobDesk) -> bool:
    return bool(desk.blobs._upload_slots._taken)


async def test_a_stream_that_falls_silent_is_ended(desk: BlobDesk) -> None:
    async def silent() -> object:
        yield Chunk(upload.id, 0, CONTENT[:10])
        await asyncio.Event().wait()

    async with desk.other(idle_s=0.05) as impatient:
        upload = await impatient.start(CONTENT)
        with pytest.raises(DeadlineExceeded):
            await impatient.blobs.write(TENANT, silent())  # type: ignore[arg-type]


async def test_a_caller_who_hangs_up_at_the_end_finds_the_blob_complete(desk: BlobDesk) -> None:
    upload = await desk.start(CONTENT)
    writing = asyncio.create_task(desk.write(upload, CONTENT))
    await eventually(lambda: _is_assembling(desk))
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing

    async def complete() -> bool:
        return (await desk.start(CONTENT)).complete

    await eventually(complete)


async def _is_assembling(desk: BlobDesk) -> bool:
    return bool(desk.blobs._assemblies)


async def test_a_part_that_is_being_stored_when_the_caller_hangs_up_counts(desk: BlobDesk) -> None:
    upload = await desk.start(CONTENT)
    writing = asyncio.create_task(desk.write(upload, CONTENT, chunk_bytes=PART_BYTES))
    await eventually(lambda: _is_storing(desk))
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await desk.blobs.close()
    after = await desk.blobs.get(TENANT, upload.id)
    assert after.committed_bytes == PART_BYTES * len(await desk.keys("uploads")) > 0


async def _is_storing(desk: BlobDesk) -> bool:
    return bool(desk.blobs._background._tasks)


async def test_an_upload_with_all_bytes_is_finished_by_whoever_asks(desk: BlobDesk) -> None:
    upload = await desk.start(CONTENT)
    key = part_key(upload.id, 0, "0")
    await desk.store.put_part(key, memoryview(CONTENT))
    upload = await desk.ledger.append(upload, len(CONTENT), key) or upload
    assert (await desk.start(CONTENT)).committed_bytes == len(CONTENT)  # the process died before the check
    assert (await desk.write(upload, CONTENT)).complete


async def test_lost_parts_mean_a_new_start(desk: BlobDesk) -> None:
    upload = await desk.write(await desk.start(CONTENT), CONTENT, end=500)
    await desk.store.delete(await desk.keys("uploads"))
    with pytest.raises(Unavailable, match="start it again"):
        await desk.write(upload, CONTENT)
    again = await desk.start(CONTENT)
    assert again.id != upload.id
    assert (await desk.write(again, CONTENT)).complete


@pytest.mark.parametrize(
    ("offset", "limit"), [(0, 0), (0, 1), (1, 0), (1000, 10_000), (500, 24), (len(CONTENT), 0), (len(CONTENT), 5)]
)
async def test_any_range_is_read(desk: BlobDesk, offset: int, limit: int) -> None:
    await desk.upload(CONTENT)
    expected = CONTENT[offset : offset + limit] if limit else CONTENT[offset:]
    assert await desk.read(DIGEST, offset, limit) == expected


@pytest.mark.parametrize(("offset", "limit", "field"), [(-1, 0, "offset"), (1025, 0, "offset"), (0, -1, "limit")])
async def test_a_range_outside_the_blob_is_refused(desk: BlobDesk, offset: int, limit: int, field: str) -> None:
    await desk.upload(CONTENT)
    with pytest.raises(InvalidFields) as raised:
        await desk.read(DIGEST, offset, limit)
    assert raised.value.violations[0].field == field


async def test_an_unknown_blob_is_not_found(desk: BlobDesk) -> None:
    await desk.start(CONTENT)
    with pytest.raises(NotFound):
        await desk.blobs.blob(DIGEST)
    with pytest.raises(NotFound):
        await desk.read(DIGEST)


async def test_expired_uploads_and_their_parts_are_swept(desk: BlobDesk) -> None:
    async with desk.other(expiry_s=-1) as hurried:
        upload = await hurried.write(await hurried.start(CONTENT), CONTENT, end=500)
    kept = await desk.start(CONTENT[1:])
    await desk.write(kept, CONTENT[1:], end=100)
    await desk.sweeper().sweep()
    with pytest.raises(NotFound):
        await desk.blobs.get(TENANT, upload.id)
    assert {key.split("/")[1].split("-")[0] for key in await desk.keys("uploads")} == {kept.id}
    kept = await desk.start(CONTENT[1:])
    assert (await desk.write(kept, CONTENT[1:])).complete


async def test_parts_that_no_row_knows_are_swept_once_they_are_old(desk: BlobDesk) -> None:
    await desk.store.put_part(part_key("f" * 32, 0, "dead"), memoryview(b"orphan"))
    await desk.sweeper(orphan_age_s=3600).sweep()
    assert len(await desk.keys("uploads")) == 1
    await desk.sweeper().sweep()
    assert await desk.keys("uploads") == []


async def test_a_blob_shorter_than_recorded_is_never_sent_as_whole(desk: BlobDesk) -> None:
    await desk.upload(CONTENT)
    await obstore.put_async(desk.objects, (await desk.blobs.blob(DIGEST)).key, CONTENT[:-1])
    with pytest.raises(RuntimeError, match="ends at"):
        await desk.read(DIGEST)


async def test_a_local_folder_holds_nothing_but_the_blob(database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "blobs"
    async with BlobDesk(database, LocalStore(folder, mkdir=True)) as desk:
        await desk.upload(CONTENT)
        wrong = await desk.start(CONTENT[1:])
        with pytest.raises(DigestMismatch):
            await desk.write(wrong, b"x" * len(CONTENT[1:]))
        key = (await desk.blobs.blob(DIGEST)).key
        async with desk.store.as_file(key, len(CONTENT)) as path:
            assert path.read_bytes() == CONTENT
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / key]


async def test_content_of_a_remote_store_is_a_file_while_it_is_read(desk: BlobDesk) -> None:
    await desk.upload(CONTENT)
    async with desk.store.as_file((await desk.blobs.blob(DIGEST)).key, len(CONTENT)) as path:
        assert path.read_bytes() == CONTENT
    assert not path.exists()
