"""modelyard.v1.ArtifactService: converts, delegates, converts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc.aio

from modelyard.core.interceptors import current_caller
from modelyard.core.names import UPLOAD, check_digest
from modelyard.v1 import artifact_service_pb2 as pb
from modelyard.v1 import artifact_service_pb2_grpc

from .content_converters import from_chunk, to_blob, to_upload
from .upload_stream import Chunk
from .uploads import Blobs

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class ArtifactServicer(artifact_service_pb2_grpc.ArtifactServiceServicer):
    """Uploads belong to their tenant; a blob may be read by whoever knows its digest and may read blobs."""

    blobs: Blobs

    async def StartUpload(self, request: pb.StartUploadRequest, _context: _Context) -> pb.Upload:
        """See the proto."""
        digest = check_digest(request.digest, "digest")
        return to_upload(await self.blobs.start(current_caller().tenant, digest, request.size_bytes))

    async def GetUpload(self, request: pb.GetUploadRequest, _context: _Context) -> pb.Upload:
        """See the proto."""
        upload_id = UPLOAD.parse(request.name, "name")["upload"]
        return to_upload(await self.blobs.get(current_caller().tenant, upload_id))

    async def WriteUpload(self, requests: AsyncIterator[pb.WriteUploadRequest], _context: _Context) -> pb.Upload:
        """See the proto."""
        return to_upload(await self.blobs.write(current_caller().tenant, _chunks(requests)))

    async def GetBlob(self, request: pb.GetBlobRequest, _context: _Context) -> pb.Blob:
        """See the proto."""
        return to_blob(await self.blobs.blob(check_digest(request.digest, "digest")))

    async def ReadBlob(self, request: pb.ReadBlobRequest, _context: _Context) -> AsyncIterator[pb.ReadBlobResponse]:
        """See the proto."""
        digest = check_digest(request.digest, "digest")
        async for offset, data in self.blobs.read(current_caller().tenant, digest, request.offset, request.limit):
            yield pb.ReadBlobResponse(offset=offset, data=data)

    async def DeleteBlob(self, request: pb.DeleteBlobRequest, _context: _Context) -> pb.DeleteBlobResponse:
        """See the proto."""
        digest = check_digest(request.digest, "digest")
        return pb.DeleteBlobResponse(existed=await self.blobs.delete(digest, request.etag))


async def _chunks(requests: AsyncIterator[pb.WriteUploadRequest]) -> AsyncIterator[Chunk]:
    first = True
    async for request in requests:
        yield from_chunk(request, first=first)
        first = False
