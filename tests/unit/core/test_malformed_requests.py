"""Bytes that are no message are the caller's mistake in every kind of call, and nothing is parsed for strangers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from modelyard.core import channels, errors
from modelyard.core.serving import Service
from modelyard.v1 import artifact_service_pb2 as pb
from modelyard.v1 import artifact_service_pb2_grpc
from support.grpc_server import serve
from support.identity import Identity

BROKEN = b"\x0a\xff\xff\xff\xff\x0f"
"""A field of a length that is not there."""


class Artifacts(artifact_service_pb2_grpc.ArtifactServiceServicer):
    """Reads what it is sent."""

    async def GetBlob(self, request: pb.GetBlobRequest, context: Any) -> pb.Blob:
        return pb.Blob(digest=request.digest)

    async def ReadBlob(self, request: pb.ReadBlobRequest, context: Any) -> AsyncIterator[pb.ReadBlobResponse]:
        yield pb.ReadBlobResponse()

    async def WriteUpload(self, requests: AsyncIterator[pb.WriteUploadRequest], context: Any) -> pb.Upload:
        return pb.Upload(committed_bytes=sum([len(request.data) async for request in requests]))


def service() -> Service:
    def register(server: grpc.aio.Server) -> None:
        artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(Artifacts(), server)

    return Service(register, ["modelyard.v1.ArtifactService"])


async def send(channel: grpc.aio.Channel, method: str, metadata: channels.Metadata) -> errors.RemoteError:
    """Calls with broken bytes and answers the error."""
    path = f"/modelyard.v1.ArtifactService/{method}"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        if method == "GetBlob":
            await channel.unary_unary(path)(BROKEN, metadata=metadata)
        elif method == "ReadBlob":
            [answer async for answer in channel.unary_stream(path)(BROKEN, metadata=metadata)]
        else:
            await channel.stream_unary(path)(iter([BROKEN]), metadata=metadata)
    return errors.RemoteError.from_rpc(raised.value)


@pytest.mark.parametrize("method", ["GetBlob", "ReadBlob", "WriteUpload"])
async def test_bytes_that_are_no_message_are_malformed_content(identity: Identity, method: str) -> None:
    async with serve(service(), identity) as address, channels.aio_channel(address) as channel:
        error = await send(channel, method, identity.metadata())
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_CONTENT")
    assert method in error.message


async def test_without_a_right_not_even_the_message_is_read(identity: Identity) -> None:
    async with serve(service(), identity) as address, channels.aio_channel(address) as channel:
        error = await send(channel, "GetBlob", ())
    assert error.reason == "TOKEN_MISSING"


class Picky(Artifacts):
    """Finds a thousand mistakes."""

    async def GetBlob(self, request: pb.GetBlobRequest, context: Any) -> pb.Blob:
        raise errors.InvalidFields([errors.FieldViolation(f"field[{i}]", "é" * 200) for i in range(1_000)])


async def test_a_thousand_mistakes_still_fit_into_the_answer(identity: Identity) -> None:
    def register(server: grpc.aio.Server) -> None:
        artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(Picky(), server)

    picky = Service(register, ["modelyard.v1.ArtifactService"])
    async with serve(picky, identity) as address, channels.aio_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            stub = artifact_service_pb2_grpc.ArtifactServiceStub(channel)
            await stub.GetBlob(pb.GetBlobRequest(), metadata=identity.metadata())
    error = errors.RemoteError.from_rpc(raised.value)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert error.violations[0].description == "é" * 200
    last = len(error.violations) - 1
    assert error.violations[last].description == f"this and {999 - last} more are wrong; there is no room to say how"
