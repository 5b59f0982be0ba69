"""An artifact store in memory, with faults on demand: streams that break, content that is not what it should be.

The registry's own is tested with the registry. This one exists for the faults.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from modelyard.core import errors
from modelyard.core.serving import Service
from modelyard.v1 import artifact_service_pb2 as pb
from modelyard.v1 import artifact_service_pb2_grpc

CHUNK_BYTES = 64 * 1024


@dataclass
class Faults:
    """What goes wrong; each counts down as it happens."""

    broken_downloads: int = 0
    """So many ReadBlob streams end UNAVAILABLE after one chunk."""
    short_downloads: int = 0
    """So many ReadBlob streams end early, as if complete."""
    broken_uploads: int = 0
    """So many WriteUpload streams end UNAVAILABLE after storing one message."""
    corrupt: bool = False
    """ReadBlob sends other bytes of the same length."""
    away: bool = False
    """Every call is answered UNAVAILABLE."""

    def take(self, name: str) -> bool:
        """Whether this fault happens now."""
        left = getattr(self, name)
        if left:
            setattr(self, name, left - 1)
        return bool(left)


@dataclass
class ArtifactStore(artifact_service_pb2_grpc.ArtifactServiceServicer):
    """Blobs by digest; unfinished uploads by name."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    received_bytes: int = 0
    """How many bytes came up, repetitions included."""
    read_offsets: list[int] = field(default_factory=list)
    """Where each download stream began."""
    _partial: dict[str, bytearray] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)

    def put(self, content: bytes) -> str:
        """Makes `content` a blob and answers its digest."""
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return digest

    def service(self) -> Service:
        """Ready for serving."""

        def register(server: grpc.aio.Server) -> None:
            artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(self, server)

        return Service(register, ["modelyard.v1.ArtifactService"])

    async def StartUpload(self, request: pb.StartUploadRequest, context: Any) -> pb.Upload:
        self._refuse_if_away()
        if request.digest not in self.blobs:
            self._partial.setdefault(request.digest, bytearray())
            self._sizes[request.digest] = request.size_bytes
        return self._upload(request.digest)

    async def GetUpload(self, request: pb.GetUploadRequest, context: Any) -> pb.Upload:
        self._refuse_if_away()
        return self._upload(request.name.removeprefix("uploads/"))

    async def WriteUpload(self, requests: AsyncIterator[pb.WriteUploadRequest], context: Any) -> pb.Upload:
        self._refuse_if_away()
        digest = ""
        async for request in requests:
            digest = digest or request.name.removeprefix("uploads/")
            stored = self._partial[digest]
            if request.offset != len(stored):
                raise errors.OffsetMismatch(f"expected offset {len(stored)}, got {request.offset}")
            stored += request.data
            self.received_bytes += len(request.data)
            if self.faults.take("broken_uploads"):
                raise errors.Unavailable("the connection broke")
        self._finish(digest)
        return self._upload(digest)

    async def GetBlob(self, request: pb.GetBlobRequest, context: Any) -> pb.Blob:
        self._refuse_if_away()
        return pb.Blob(digest=request.digest, size_bytes=len(self._content(request.digest)))

    async def ReadBlob(self, request: pb.ReadBlobRequest, context: Any) -> AsyncIterator[pb.ReadBlobResponse]:
        self._refuse_if_away()
        content = self._content(request.digest)
        self.read_offsets.append(request.offset)
        for offset in range(request.offset, len(content), CHUNK_BYTES):
            data = content[offset : offset + CHUNK_BYTES]
            yield pb.ReadBlobResponse(offset=offset, data=bytes(len(data)) if self.faults.corrupt else data)
            if self.faults.take("broken_downloads"):
                raise errors.Unavailable("the connection broke")
            if self.faults.take("short_downloads"):
                return

    def _refuse_if_away(self) -> None:
        if self.faults.away:
            raise errors.Unavailable("away")

    def _content(self, digest: str) -> bytes:
        if digest not in self.blobs:
            raise errors.NotFound.resource(f"blobs/{digest}")
        return self.blobs[digest]

    def _finish(self, digest: str) -> None:
        content = bytes(self._partial[digest])
        if len(content) < self._sizes[digest]:
            return
        del self._partial[digest]
        if hashlib.sha256(content).hexdigest() != digest:
            raise errors.DigestMismatch("the content is not what was announced")
        self.blobs[digest] = content

    def _upload(self, digest: str) -> pb.Upload:
        complete = digest in self.blobs
        size = len(self.blobs[digest]) if complete else self._sizes[digest]
        committed = size if complete else len(self._partial[digest])
        return pb.Upload(
            name=f"uploads/{digest}", digest=digest, size_bytes=size, committed_bytes=committed, complete=complete
        )
